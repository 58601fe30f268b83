//! Which tests hold which defence of the core (its feature `defence-switches`).

use crate::layers::{Binary, sim, tests};
use soma_sync_core::defence::Defence;

/// What the tests are in: those of this crate, and of the simulator.
pub const BINARIES: &[Binary] =
    &[tests("threats"), tests("seed_defects"), tests("boundaries"), sim("head"), sim("serving")];

/// A defence, and who is to miss it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The rows of the table of threats, or the seed's defects, that it is there for.
    pub rows: &'static str,
    /// The defence.
    pub defence: Defence,
    /// Tests of [`BINARIES`], by the name of the function, that are run without it. At least one must fail.
    pub tests: &'static [&'static str],
}

const fn held(rows: &'static str, defence: Defence, tests: &'static [&'static str]) -> Held {
    Held { rows, defence, tests }
}

/// Peers ask for more than they may have, or at once.
const ADMISSION: &[&str] = &[
    "flooders_that_hold_on_to_their_answers_keep_an_honest_client_waiting",
    "a_flood_is_answered_beyond_its_rate",
    "the_same_dear_request_is_answered_again_and_again",
    "of_fifty_clients_that_ask_at_once_some_wait_for_ever_and_some_for_nothing",
    "who_hangs_up_keeps_slots_and_places",
    "requests_that_waited_for_a_commit_pass_those_that_wait_for_a_slot",
];

/// Some of what a peer sends is bad.
const BAD_ITEMS: &[&str] = &[
    "threat_15_one_bad_block_spoils_the_good_ones_or_is_charged_to_another",
    "threat_15_what_comes_after_a_bad_block_is_fetched_again",
    "threat_15_good_headers_with_bad_payloads_are_stored",
    "threat_15_one_bad_certifier_spoils_the_quorum",
    "threat_15_who_turns_later_is_trusted_for_ever",
];

/// An object comes in another encoding.
const ENCODINGS: &[&str] = &[
    "threat_28_a_second_encoding_of_an_object_is_taken",
    "threat_28_a_second_encoding_counts_where_no_digest_gives_it_away",
];

/// Who misbehaved comes back.
const RETURNING: &[&str] =
    &["threat_23_reconnecting_launders_a_score", "threat_23_a_ban_ends_with_the_connection"];

/// Many do the same at once.
const IN_STEP: &[&str] =
    &["threat_27_all_ask_at_once_and_some_are_served_last", "threat_27_all_go_on_asking_at_once"];

/// All of them.
pub const HELD: &[Held] = &[
    held(
        "01; seed 01",
        Defence::CutClaims,
        &[
            "threat_01_an_inflated_height_makes_others_ineligible_or_is_believed_for_ever",
            "threat_01_an_inflated_height_keeps_a_node_from_being_synced",
            "seed_defect_01_one_inflated_claim_makes_every_honest_peer_ineligible",
        ],
    ),
    held(
        "02",
        Defence::AbandonUnclaimed,
        &[
            "threat_02_a_lowered_height_or_a_raised_lowest_wedges_the_sync",
            "threat_02_ranges_of_a_peer_that_lowers_its_height_are_waited_for",
            "threat_02_what_a_peer_no_longer_claims_is_waited_for",
        ],
    ),
    held("03", Defence::InvertedClaims, &["threat_03_a_lowest_above_the_highest_is_taken_for_a_claim"]),
    held(
        "04; seed 07",
        Defence::Deadlines,
        &[
            "threat_04_a_silent_peers_requests_are_waited_for_one_after_the_other",
            "threat_04_many_silent_peers_are_waited_for_one_after_the_other",
            "seed_defect_07_a_fetch_has_no_deadline",
        ],
    ),
    held(
        "04, 06",
        Defence::Hedging,
        &[
            "threat_06_who_held_up_the_head_of_line_is_asked_for_it_again",
            "a_peer_that_stops_sending_commits_or_blocks_holds_up_everything_until_its_time_is_up",
        ],
    ),
    held(
        "05",
        Defence::ProgressDeadline,
        &[
            "threat_05_a_trickle_counts_as_progress",
            "threat_04_many_silent_peers_are_waited_for_one_after_the_other",
            "threat_24_many_silent_identities_fill_all_places",
        ],
    ),
    held("06", Defence::TotalDeadline, &["threat_06_an_answer_goes_on_for_as_long_as_it_crawls"]),
    held(
        "04, 06",
        Defence::Overtaken,
        &[
            "threat_06_who_was_overtaken_is_asked_as_often_as_others",
            "threat_06_who_held_up_the_head_of_line_is_asked_for_it_again",
        ],
    ),
    held(
        "06",
        Defence::Outpaced,
        &[
            "threat_06_peers_just_above_the_threshold_hold_the_head_of_line",
            "threat_06_who_was_overtaken_is_asked_as_often_as_others",
        ],
    ),
    held("07", Defence::EmptyAnswers, &["threat_07_empty_answers_keep_a_claim_alive"]),
    held(
        "08; seed 15",
        Defence::ChainCheck,
        &[
            "threat_08_a_peer_on_another_chain_is_listened_to",
            "seed_defect_15_every_chain_passes_the_chain_check",
        ],
    ),
    held(
        "08; seed 06",
        Defence::LinkToTip,
        &[
            "threat_08_a_fork_is_followed_or_passes_unseen",
            "seed_defect_06_the_first_commit_of_an_answer_is_not_linked_to_our_tip",
        ],
    ),
    held(
        "09; seed 05",
        Defence::BlockEpoch,
        &[
            "threat_09_keys_of_another_epoch_certify",
            "seed_defect_05_certifiers_count_under_their_own_epochs_committee",
        ],
    ),
    held(
        "10; seed 04",
        Defence::ExpectedEpoch,
        &[
            "threat_10_an_epoch_far_away_makes_a_node_wait",
            "seed_defect_04_an_epoch_that_nobody_signed_makes_the_node_wait_on_the_same_peer",
        ],
    ),
    held(
        "11",
        Defence::StakeOnce,
        &[
            "threat_11_stake_is_counted_more_than_once_or_for_another_digest",
            "threat_11_certifiers_without_number_are_looked_at",
        ],
    ),
    held(
        "11; seed 14",
        Defence::ExactVotes,
        &[
            "threat_11_stake_is_counted_more_than_once_or_for_another_digest",
            "seed_defect_14_votes_are_counted_by_index_whatever_their_digest",
        ],
    ),
    held(
        "11",
        Defence::Quorum,
        &[
            "threat_11_stake_is_counted_more_than_once_or_for_another_digest",
            "a_quorum_is_reached_by_less_or_not_by_enough",
        ],
    ),
    held("11", Defence::CertifierCount, &["threat_11_certifiers_without_number_are_looked_at"]),
    held("12", Defence::CommitCount, &["threat_12_an_answer_over_its_limits_is_taken"]),
    held(
        "12",
        Defence::MalformedAnswers,
        &[
            "threat_12_an_answer_over_its_limits_is_taken",
            "threat_19_requests_that_make_no_sense_are_served",
            "threat_19_malformed_requests_are_borne_for_ever",
        ],
    ),
    held("13", Defence::AnswerKind, &["threat_13_an_answer_of_another_kind_is_taken"]),
    held(
        "13",
        Defence::StaleAnswers,
        &[
            "threat_13_answers_nobody_waits_for_change_something",
            "threat_13_an_answer_sent_twice_is_taken_twice",
        ],
    ),
    held("14", Defence::BlockCount, &["threat_14_too_many_reordered_or_foreign_items_are_taken"]),
    held("14", Defence::FirstCommit, &["threat_14_too_many_reordered_or_foreign_items_are_taken"]),
    held("14", Defence::CommitOrder, &["threat_14_too_many_reordered_or_foreign_items_are_taken"]),
    held("14", Defence::BlockDigests, &["threat_14_too_many_reordered_or_foreign_items_are_taken"]),
    held("15", Defence::GoodBlocks, BAD_ITEMS),
    held("15", Defence::SmallFirstRequests, &["threat_15_a_stranger_is_asked_for_all_blocks_at_once"]),
    held("15", Defence::BadBlocks, BAD_ITEMS),
    held("15", Defence::BadCertifiers, &["threat_15_one_bad_certifier_spoils_the_quorum"]),
    held("16", Defence::IdlePushes, &["threat_16_pushes_at_full_speed_make_work_without_end"]),
    held("17", Defence::RequestRate, ADMISSION),
    held("17", Defence::ServedRate, &["a_peer_is_sent_more_bytes_in_a_second_than_it_may_be"]),
    held("17", Defence::RepeatedAnswers, ADMISSION),
    held("18", Defence::ServingPerPeer, ADMISSION),
    held("18", Defence::UnreadAnswers, &["threat_18_who_reads_nothing_holds_places_again_and_again"]),
    held(
        "17",
        Defence::FairTurns,
        &["who_asks_for_much_at_once_is_served_more_or_less_than_who_asks_for_little"],
    ),
    held(
        "18",
        Defence::ServeDeadline,
        &[
            "threat_18_answers_that_nobody_reads_take_the_service_of_honest_peers",
            "threat_18_answers_that_nobody_reads_hold_places_for_ever",
            "threat_18_unread_answers_of_many_identities_fill_all_places",
        ],
    ),
    held(
        "19; seed 11",
        Defence::PossibleReferences,
        &[
            "threat_19_requests_that_make_no_sense_are_served",
            "threat_19_malformed_requests_are_borne_for_ever",
            "seed_defect_11_a_number_from_the_network_is_an_index_into_an_array",
        ],
    ),
    held(
        "19",
        Defence::GenesisRange,
        &[
            "threat_19_requests_that_make_no_sense_are_served",
            "threat_19_malformed_requests_are_borne_for_ever",
            "seed_defect_11_a_number_from_the_network_is_an_index_into_an_array",
            "seed_defect_20_a_range_that_starts_above_its_end_crashes_the_server",
        ],
    ),
    held(
        "19",
        Defence::InvalidRequests,
        &[
            "threat_19_requests_that_make_no_sense_are_served",
            "threat_19_malformed_requests_are_borne_for_ever",
        ],
    ),
    held(
        "20, 21",
        Defence::AvoidFailed,
        &[
            "threat_20_who_has_failed_to_deliver_is_asked_for_the_same_again_at_once",
            "threat_20_one_commit_that_is_withheld_is_asked_for_again_at_once",
            "threat_21_a_link_that_works_a_twentieth_of_the_time_is_never_used",
        ],
    ),
    held(
        "20",
        Defence::NoProvider,
        &["threat_20_what_is_pruned_and_advertised_stalls_the_sync_or_is_reported_falsely"],
    ),
    held(
        "21",
        Defence::BlamelessTimeouts,
        &[
            "threat_21_honest_peers_are_blamed_for_what_others_do",
            "threat_21_time_outs_are_held_to_be_offences",
            "threat_21_a_link_that_works_a_twentieth_of_the_time_is_never_used",
        ],
    ),
    held(
        "21",
        Defence::BlamelessEpochs,
        &[
            "threat_21_honest_peers_are_blamed_for_what_others_do",
            "threat_21_time_outs_are_held_to_be_offences",
            "threat_21_a_link_that_works_a_twentieth_of_the_time_is_never_used",
            "threat_10_an_epoch_far_away_makes_a_node_wait",
        ],
    ),
    held("22", Defence::StoreFailure, &["threat_22_a_failing_disk_costs_peers_their_standing"]),
    held("22", Defence::LocalFailure, &["threat_22_our_own_failures_to_ask_cost_peers_their_standing"]),
    held(
        "22",
        Defence::LinkOutage,
        &[
            "threat_22_a_failing_disk_costs_peers_their_standing",
            "threat_22_our_own_failures_to_ask_cost_peers_their_standing",
            "threat_22_a_link_of_ours_that_was_down_costs_peers_their_standing",
        ],
    ),
    held("23", Defence::KeptRecords, RETURNING),
    held("23", Defence::Bans, RETURNING),
    held("24", Defence::ShareOfWork, &["threat_24_one_peer_takes_more_than_its_share"]),
    held(
        "25",
        Defence::FrontierBytes,
        &[
            "threat_25_what_is_far_ahead_fills_the_budget_behind_a_gap",
            "threat_25_requests_ahead_that_never_end_keep_the_front_waiting",
            "threat_25_the_front_is_asked_of_those_who_never_give_it",
        ],
    ),
    held("26", Defence::RisingTime, &["threat_26_time_falls_along_the_chain_or_is_taken_from_a_peer"]),
    held("27", Defence::PollJitter, IN_STEP),
    held("27", Defence::FollowJitter, IN_STEP),
    held("28", Defence::CommitEnd, ENCODINGS),
    held("28", Defence::BlockEnd, ENCODINGS),
    held(
        "30",
        Defence::DurableBroadcast,
        &["threat_30_a_crash_loop_makes_no_progress", "a_restart_from_some_store_does_not_go_on"],
    ),
    held(
        "seed 02",
        Defence::LowestClaimed,
        &["seed_defect_02_a_peers_lowest_is_held_against_the_target_and_not_the_next_commit"],
    ),
    held("seed 03", Defence::MarkedWork, &["seed_defect_03_the_same_work_is_begun_again_at_every_turn"]),
    held(
        "seed 08",
        Defence::LargestItem,
        &[
            "seed_defect_08_what_legitimately_passes_a_message_is_thrown_away_for_ever",
            "a_block_at_its_limit_is_refused_or_one_over_it_is_taken",
            "a_commit_at_its_limit_is_refused_or_one_over_it_is_taken",
        ],
    ),
    held(
        "seed 09",
        Defence::AnswerBytes,
        &["seed_defect_09_the_byte_cap_is_for_each_message_and_not_for_all"],
    ),
    held(
        "seed 10",
        Defence::SinglePoll,
        &["seed_defect_10_the_slowest_poll_holds_up_the_others_or_runs_many_times_over"],
    ),
    held(
        "seed 12",
        Defence::ReferenceCount,
        &[
            "seed_defect_12_what_may_be_asked_for_has_no_limit_or_overflows",
            "a_request_at_its_limit_is_refused_or_one_over_it_is_served",
        ],
    ),
    held("seed 13", Defence::ServedPrefix, &["seed_defect_13_a_range_past_the_tip_is_answered_with_nothing"]),
    held("seed 16", Defence::MissingBlocks, &["seed_defect_16_a_missing_block_or_a_gap_is_a_panic"]),
    held(
        "seed 19",
        Defence::KeptCertifiers,
        &["seed_defect_19_a_node_that_has_just_synced_cannot_certify_its_last_commits"],
    ),
    held(
        "seed 21",
        Defence::ServedBytes,
        &["seed_defect_21_repeated_references_make_a_small_request_a_large_answer"],
    ),
    held(
        "seed 22",
        Defence::EnlargedAnswers,
        &["seed_defect_22_the_certifiers_of_a_large_committee_never_fit"],
    ),
    held("seed 23", Defence::QuorumAmongBad, &["seed_defect_23_one_bad_certifier_fails_the_whole_answer"]),
    held(
        "seed 24",
        Defence::ObservedAtOnce,
        &["seed_defect_24_commits_of_our_consensus_are_slow_or_delivered_again"],
    ),
    held(
        "seed 25",
        Defence::InvalidCommittee,
        &["seed_defect_25_a_validator_set_that_is_none_crashes_the_node"],
    ),
];
