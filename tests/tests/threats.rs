//! What hostile and broken peers do, and what must happen (threats: the table): a test for each row, by its number.
//!
//! Real machines on simulated links, an oracle that watches the honest ones, virtual time. What belongs to the encoding
//! of messages (row 12) or to connections (parts of rows 16 to 18 and 24) is tested beside its code too.

mod scene;

#[path = "threats/claims.rs"]
mod claims;
#[path = "threats/crashes.rs"]
mod crashes;
#[path = "threats/delays.rs"]
mod delays;
#[path = "threats/faults.rs"]
mod faults;
#[path = "threats/floods.rs"]
mod floods;
#[path = "threats/forgeries.rs"]
mod forgeries;
#[path = "threats/items.rs"]
mod items;
