//! Searches every state of a small scope, and prints how many there are.

use soma_sync_sim::small_scope::{Budget, Scope, search};

fn main() {
    let arguments: Vec<u8> = std::env::args().skip(1).map(|value| value.parse().unwrap()).collect();
    let [
        commits,
        batch,
        requests,
        seeds,
        turn,
        crashes,
        losses,
        disconnects,
        store,
        workers,
        timers,
        messages,
    ] = arguments[..]
    else {
        panic!()
    };
    let scope = Scope {
        commits: commits.into(),
        blocks: 1,
        epochs: 1,
        batch: batch.into(),
        requests: requests.into(),
        messages: messages.into(),
        seeds,
        connect_in_turn: turn == 1,
        budget: Budget {
            crashes,
            losses,
            disconnects,
            store_failures: store,
            worker_deaths: workers,
            timers,
        },
    };
    let begun = std::time::Instant::now();
    match search(scope) {
        Ok(report) => println!("{report}{:?} unseen {:?}", begun.elapsed(), report.unseen()),
        Err(violation) => println!("{violation}"),
    }
}
