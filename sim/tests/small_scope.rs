//! Every state of a few small scopes of the real machine.

use soma_sync_sim::small_scope::{Report, Scope, search};

#[test]
fn a_state_of_a_small_scope_breaks_a_rule_or_never_comes_to_the_tip() {
    let mut reports = Vec::new();
    for scope in Scope::ordinary() {
        let report = search(scope).unwrap_or_else(|violation| panic!("{scope:?}: {violation}"));
        println!("{scope:?}\n{report}");
        reports.push(report);
    }
    assert_eq!(Report::unseen(&reports), [], "never seen to happen");
}
