//! Everything that can be set, once: flags, the configuration file and what `--print-config` prints are made of it.

use super::{Setting, Settings, value};

macro_rules! table {
    ($($section:literal { $($(#[doc = $about:literal])+ $key:ident $flag:literal => $($field:ident).+;)* })*) => {
        /// In the order in which they are printed.
        pub(in crate::node) static TABLE: &[Setting] = &[$($(Setting {
            section: $section,
            key: stringify!($key),
            flag: $flag,
            about: concat!($($about),+),
            form: value::form(|settings: &Settings| &settings.$($field).+),
            many: value::many(|settings: &Settings| &settings.$($field).+),
            read: |settings, texts| value::read_into(&mut settings.$($field).+, texts),
            write: |settings| value::write(&settings.$($field).+),
        },)*)*];
    };
}

table! {
    "" {
        /// The store's directory. Made where there is none.
        store "store" => store;
        /// A genesis file, or any chain file of the chain. Not needed where there is a store.
        genesis "genesis" => genesis;
        /// The file with our key, made on first use; `identity` in the store's directory where it is not given.
        identity "identity" => identity;
        /// Where to take connections; port 0 takes a free one. Without it the node only fetches.
        listen "listen" => listen;
        /// Who is connected to, as the peer's `listening` line has it. Can be given many times.
        peers "peer" => peers;
        /// Who may connect to us; everybody where it is not given. Can be given many times.
        allow "allow" => quic.allow;
        /// Where to answer HTTP for /metrics, /status, /healthz, /readyz and /explain?index=N, which says why a commit is
        /// where it is; nowhere where it is not given. Everybody who reaches the address can read them.
        metrics "metrics" => metrics;
    }
    "store_file" {
        /// Bytes of the store's file kept in memory. More spares reads.
        cache_bytes "store-cache-bytes" => store_file.cache_bytes;
        /// Up to so many bytes of file, all of it is read and checked before the store is used. A larger one is trusted:
        /// what changed in it at rest is found when it is read, and may end the process when it is written.
        check_up_to_bytes "store-check-up-to-bytes" => store_file.check_up_to_bytes;
    }
    "sync" {
        /// Most commits in one request, at least 1 and at most 10,000. Larger ranges need fewer certificates; smaller
        /// ones spread over peers sooner.
        commit_sync_batch_size "commit-sync-batch-size" => sync.commit_sync_batch_size;
        /// Most blocks in one request, at least 1 and at most 100,000.
        max_blocks_per_fetch "max-blocks-per-fetch" => sync.max_blocks_per_fetch;
        /// Most bytes in one message of an answer, at least 64 KiB and at most 1 GiB. Also what a request for blocks
        /// or commits reserves in the byte budget, unless the largest block needs more.
        max_fetch_response_bytes "max-fetch-response-bytes" => sync.max_fetch_response_bytes;
        /// Upper bound on any request, at least 1 ms and at most an hour.
        timeout "timeout" => sync.timeout;
        /// How long until peers are looked at again when none can serve, at least 1 ms and at most an hour.
        wait_interval_when_no_peer_to_sync_content "wait-interval-when-no-peer-to-sync-content"
            => sync.wait_interval_when_no_peer_to_sync_content;
        /// Bytes of untrusted or not yet stored data held at any time. At least twice what the lowest unfinished commit
        /// needs: three answers, each of `max_fetch_response_bytes` or of the largest block or commit where that is
        /// more, and the largest block. More lets more requests be in flight.
        max_buffered_bytes "max-buffered-bytes" => sync.max_buffered_bytes;
        /// How many commits above the stored tip are worked on at once, and how far consumers may lag behind the
        /// stored tip before fetching stops. At least `commit_sync_batch_size`, at most 1,000,000.
        look_ahead_commits "look-ahead-commits" => sync.look_ahead_commits;
        /// Most requests in flight to one peer, at least 1 and at most 1,000.
        max_requests_per_peer "max-requests-per-peer" => sync.max_requests_per_peer;
        /// Most requests in flight in all, at least 1 and at most 10,000. Where a second peer is asked for the commit
        /// that everything waits for, that request comes on top.
        max_requests "max-requests" => sync.max_requests;
        /// Most verification jobs handed out at once, at least 1 and at most 10,000. As many as there are workers,
        /// and a few to keep them busy.
        max_verify_jobs "max-verify-jobs" => sync.max_verify_jobs;
        /// Most batches handed to storage and not yet durable, at least 1 and at most 100.
        max_store_batches "max-store-batches" => sync.max_store_batches;
        /// Most bytes of blocks in one batch for storage, at least 64 KiB; a batch of one commit may be larger.
        max_store_batch_bytes "max-store-batch-bytes" => sync.max_store_batch_bytes;
        /// Most peers that the machine keeps a record of, connected or not, at least 1 and at most 100,000.
        max_peers "max-peers" => sync.max_peers;
        /// Interval of asking a peer how far it is when we are level, at least 1 ms and at most an hour.
        poll_interval_level "poll-interval-level" => sync.poll_interval_level;
        /// The same when we are behind.
        poll_interval_behind "poll-interval-behind" => sync.poll_interval_behind;
        /// How long the same peer is not asked for the same range after it failed to deliver, at most an hour.
        retry_same_peer_after "retry-same-peer-after" => sync.retry_same_peer_after;
        /// How long a peer is kept out after a provable offence; doubled with each further one, up to 64 times. At
        /// least 1 ms and at most an hour.
        ban "ban" => sync.ban;
        /// Most inbound requests being served at once for one peer, at least 1 and at most 1,000. No peer is served
        /// more at once than could be served beside it.
        max_serving_per_peer "max-serving-per-peer" => sync.max_serving_per_peer;
        /// Most inbound requests being served at once in all, at least 1 and at most 100,000.
        max_serving "max-serving" => sync.max_serving;
        /// Most inbound requests of one peer that wait to be served, at most 1,000. None: what cannot be served at
        /// once is refused.
        max_queued_per_peer "max-queued-per-peer" => sync.max_queued_per_peer;
        /// The same of all peers, at most 100,000.
        max_queued "max-queued" => sync.max_queued;
        /// Most requests for commits and blocks that one peer may send in a second, at least 1 and at most 1,000,000.
        /// Fewer protect the disk; a peer that catches up over small blocks needs some thousands.
        max_data_requests_per_second "max-data-requests-per-second" => sync.max_data_requests_per_second;
        /// The same for requests that a short message answers: which commit, how far, and pushes.
        max_small_requests_per_second "max-small-requests-per-second" => sync.max_small_requests_per_second;
        /// Most bytes of commits and blocks that one peer is sent in a second, at least 64 KiB and at most 1 TiB; a
        /// single answer may pass it. Fewer keep the uplink for others.
        max_served_bytes_per_second "max-served-bytes-per-second" => sync.max_served_bytes_per_second;
        /// How long an inbound request may take once it is being served, at least 1 ms and at most an hour.
        serve_timeout "serve-timeout" => sync.serve_timeout;
        /// Most requests for commits that are not there yet and wait here for them, of one peer; at most 1,000. None: a
        /// request for what is not there is refused at once.
        max_parked_per_peer "max-parked-per-peer" => sync.max_parked_per_peer;
        /// The same of all peers, at most 100,000.
        max_parked "max-parked" => sync.max_parked;
        /// Longest that a request waits, whatever it asks for; at least 1 ms and at most an hour.
        max_park "max-park" => sync.max_park;
        /// How many requests of ours wait at peers for the next commits while we are at the tip, at most 100. None:
        /// the tip is followed by asking for what peers say they have.
        follow_requests "follow-requests" => sync.follow_requests;
        /// How long such a request is to wait; at least 1 ms and at most an hour.
        follow_wait "follow-wait" => sync.follow_wait;
        /// How many invalid requests a peer may send before it is disconnected, at least 1.
        max_invalid_requests "max-invalid-requests" => sync.max_invalid_requests;
        /// How much is checked of a block beyond its digest.
        block_verification "block-verification" => sync.block_verification;
        /// Commits that must be on the chain, given by the operator; ascending, one per index, at most 10,000.
        pinned_commits "pinned-commit" => sync.pinned_commits;
    }
    "limits" {
        /// Bytes of one signed block, at least 1 KiB and at most 1 GiB.
        max_block_bytes "max-block-bytes" => sync.limits.max_block_bytes;
        /// Blocks that one commit names, at least 1 and at most 1,000,000.
        max_blocks_per_commit "max-blocks-per-commit" => sync.limits.max_blocks_per_commit;
        /// Ancestors of one block, at least 1 and at most 10,000. Also the largest committee.
        max_ancestors "max-ancestors" => sync.limits.max_ancestors;
        /// Commit votes in one block, at least 1 and at most 1,000,000.
        max_votes_per_block "max-votes-per-block" => sync.limits.max_votes_per_block;
        /// Transactions in one block, at least 1 and at most 10,000,000.
        max_transactions_per_block "max-transactions-per-block" => sync.limits.max_transactions_per_block;
    }
    "runtime" {
        /// Events waiting for the driver, at least 1 and at most 100,000. More smooths bursts, and holds more answers
        /// in memory.
        mailbox_capacity "runtime-mailbox-capacity" => runtime.mailbox_capacity;
        /// Sub-dags waiting for one subscriber, at least 1 and at most 100,000. A full channel is backpressure, never
        /// loss.
        synced_commit_broadcast_channel_capacity "runtime-synced-commit-broadcast-channel-capacity"
            => runtime.synced_commit_broadcast_channel_capacity;
        /// Most bytes of stored sub-dags kept in memory for subscribers that have not taken them; what is not kept is
        /// read from the store.
        recent_sub_dag_bytes "runtime-recent-sub-dag-bytes" => runtime.recent_sub_dag_bytes;
        /// Threads that verify, at most 1,000. By default as many as the machine has processors for us.
        verify_workers "runtime-verify-workers" => runtime.verify_workers;
        /// Most connections, at most 100,000; peers that we dial are let in beyond it.
        max_connections "runtime-max-connections" => runtime.max_connections;
        /// Most streams that one peer may have open to us, at least 1 and at most 10,000: requests that it sends, has
        /// waiting, or is being answered.
        max_streams_per_connection "runtime-max-streams-per-connection" => runtime.max_streams_per_connection;
        /// How long a peer may take to send a request on a stream that it opened, or to take 256 KiB of an answer, at
        /// least 1 ms and at most an hour. Less frees the places of those who do not read sooner; whoever gives up
        /// answers that are slower than 64 KiB/s, as the machine does, needs no more than the default.
        request_timeout "runtime-request-timeout" => runtime.request_timeout;
        /// How long dialling may take, at least 1 ms and at most an hour.
        dial_timeout "runtime-dial-timeout" => runtime.dial_timeout;
        /// Pause after the first failed attempt to reach a peer, at least 1 ms; doubled with each further one.
        dial_backoff_min "runtime-dial-backoff-min" => runtime.dial_backoff_min;
        /// The longest such pause, at most an hour. A connection that stood for longer starts the pauses over.
        dial_backoff_max "runtime-dial-backoff-max" => runtime.dial_backoff_max;
        /// Pause before the first attempt to open a store that failed again, at least 1 ms; doubled with each further
        /// one.
        reopen_backoff_min "runtime-reopen-backoff-min" => runtime.reopen_backoff_min;
        /// The longest such pause, at most an hour.
        reopen_backoff_max "runtime-reopen-backoff-max" => runtime.reopen_backoff_max;
        /// Notices that wait for one who reads them, at least 1 and at most 100,000; the oldest are dropped beyond
        /// it.
        notices_capacity "runtime-notices-capacity" => runtime.notices_capacity;
        /// How long stopping may take before what is still at work is left behind, at least 1 ms and at most an hour.
        shutdown_timeout "runtime-shutdown-timeout" => runtime.shutdown_timeout;
    }
    "quic" {
        /// Most inbound connections at once, those in their handshake included, at least 1 and at most 100,000. What
        /// is above is refused.
        max_connections "quic-max-connections" => quic.max_connections;
        /// The same for one IPv4 address, or one /64 network of IPv6, at least 1 and at most `max_connections`.
        max_connections_per_address "quic-max-connections-per-address" => quic.max_connections_per_address;
        /// Most streams that a peer may have open on one connection, at least 1 and at most 10,000. More lets it ask
        /// more at once; each costs memory while it is open.
        max_streams "quic-max-streams" => quic.max_streams;
        /// Bytes that a peer may send on one stream before they are read, between 16 KiB and 1 GiB. At least the
        /// throughput wanted times the round trip.
        stream_window_bytes "quic-stream-window-bytes" => quic.stream_window_bytes;
        /// Bytes that a peer may send on all streams of a connection before they are read, as long as it has not
        /// delivered anything that we asked for; between 16 KiB and 1 GiB. This is what a stranger can pin, and so
        /// what a crowd of them can, times its number. It need not hold all that a peer asks at once: requests are
        /// sent one after the other and read in that order. More lets a peer far away ask for more in a round trip.
        connection_window_bytes_min "quic-connection-window-bytes-min" => quic.connection_window_bytes_min;
        /// What that window grows to, as answers are read: at least `connection_window_bytes_min`, at most 1 GiB.
        /// More lets other streams go on while a large one is not read.
        connection_window_bytes_max "quic-connection-window-bytes-max" => quic.connection_window_bytes_max;
        /// Bytes that we keep on one connection until the peer has acknowledged them, between 16 KiB and 1 GiB. At
        /// least the throughput wanted times the round trip.
        send_window_bytes "quic-send-window-bytes" => quic.send_window_bytes;
        /// Buffers asked of the system for the UDP socket, each way, between 64 KiB and 1 GiB. The system may grant
        /// less, and the log says so then.
        socket_buffer_bytes "quic-socket-buffer-bytes" => quic.socket_buffer_bytes;
        /// How long a handshake may take, in or out, between 10 ms and 1 h.
        handshake_timeout "quic-handshake-timeout" => quic.handshake_timeout;
        /// How often something is sent on a connection that is otherwise silent, between 10 ms and half of
        /// `idle_timeout`, so that one that is lost is told from one that is quiet.
        keep_alive_interval "quic-keep-alive-interval" => quic.keep_alive_interval;
        /// After how long without a sign of life a connection counts as lost, between 20 ms and 1 h. Theirs counts
        /// where it is shorter.
        idle_timeout "quic-idle-timeout" => quic.idle_timeout;
        /// How long stopping waits at most for the peers to hear of it, between 1 ms and 1 h.
        close_timeout "quic-close-timeout" => quic.close_timeout;
    }
}
