//! What hostile peers do over real QUIC (threats: the rows marked Q), and what must happen: whole nodes on loopback,
//! beside peers that write what they like on real streams.
//!
//! Nothing here waits for time. A condition that never comes about is a test that never ends.

#[path = "quic_threats/answers.rs"]
mod answers;
#[path = "quic_threats/floods.rs"]
mod floods;
#[path = "quic_threats/requests.rs"]
mod requests;
#[path = "quic_threats/scene.rs"]
mod scene;
