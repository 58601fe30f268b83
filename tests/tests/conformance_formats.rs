//! Every vector of the original implementation's formats: the same bytes, the same digests, the same values.

use bytes::Bytes;
use serde_json::Value;
use soma_sync_core::{
    block::{Block, BlockView, EndOfEpochData, signing_message},
    committee::{Committee, QUORUM_STAKE, TOTAL_STAKE, VALIDITY_STAKE, ValidatorSet},
    config::Limits,
    job::CommitHeader,
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitRef, Epoch, Round},
};
use soma_sync_tests::{
    mirror::owned,
    vectors::{Vectors, block_ref, commit_ref, list, number, number_u32, outcome, text, unhex, unhex_array},
};

const ACCEPT_ALL: &dyn Fn(&[u8]) -> bool = &|_| true;

#[test]
fn committees_are_read_in_index_order_and_written_byte_for_byte() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let json = vectors.json("committees.json");
    assert_eq!(list(&json).len(), 6);
    for vector in list(&json) {
        let committee = &committees[text(&vector["name"])];
        assert_eq!(committee.encoding(), &unhex(&vector["validator_set_bcs"]));
        assert_eq!(committee.epoch().get(), number(&vector["epoch"]));
        assert_eq!(committee.size() as u64, number(&vector["size"]));
        assert_eq!(TOTAL_STAKE.get(), number(&vector["total_stake"]));
        assert_eq!(QUORUM_STAKE.get(), number(&vector["quorum_threshold"]));
        assert_eq!(VALIDITY_STAKE.get(), number(&vector["validity_threshold"]));
        for authority in list(&vector["authorities"]) {
            let index = AuthorityIndex::new(number_u32(&authority["index"]));
            let ours = committee.authority(index).expect("in the committee");
            let metadata = &authority["metadata"];
            assert_eq!(ours.name.as_bytes(), &unhex_array(&authority["authority_public_key"]));
            assert_eq!(ours.stake.get(), number(&authority["stake"]));
            assert_eq!(ours.metadata.protocol_key, unhex_array(&authority["protocol_public_key"]));
            assert_eq!(ours.metadata.network_key, unhex_array(&authority["network_public_key"]));
            assert_eq!(ours.metadata.authority_key, unhex_array(&metadata["authority_key"]));
            assert_eq!(ours.metadata.consensus_address, text(&metadata["consensus_address"]));
            assert_eq!(ours.metadata.network_address, text(&metadata["network_address"]));
            assert_eq!(ours.metadata.primary_address, text(&metadata["primary_address"]));
            assert_eq!(ours.metadata.hostname, text(&metadata["hostname"]));
        }
    }
}

#[test]
fn a_committee_does_not_depend_on_the_order_of_its_validator_set() {
    let Some(vectors) = Vectors::find() else { return };
    for committee in vectors.committees().values() {
        let mut set = ValidatorSet::decode(committee.encoding()).expect("a validator set");
        set.authorities.reverse();
        let reversed = Committee::new(committee.epoch(), set, &Limits::default()).expect("a committee");
        assert_eq!(&reversed, &**committee);
        assert_eq!(reversed.encoding(), committee.encoding());
        assert_eq!(reversed.chain_id(), committee.chain_id());
    }
}

#[test]
fn genesis_blocks_and_their_references_are_those_of_the_original() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut compared = 0;
    for vector in list(&vectors.json("genesis.json")) {
        let committee = &committees[text(&vector["committee"])];
        for block in list(&vector["blocks"]) {
            let author = AuthorityIndex::new(number_u32(&block["author"]));
            let expected = block_ref(&block["block_ref"]);
            assert_eq!(committee.genesis(author), Some(expected));
            assert_eq!(expected.to_bytes(), *unhex(&block["block_ref_bcs"]));
            let made = Block { epoch: committee.epoch(), author, ..Block::default() }.unsigned();
            assert_eq!(made, (expected, unhex(&block["signed_block_bcs"])));
            compared += 1;
        }
        let beyond = u32::try_from(committee.size()).expect("small");
        assert_eq!(committee.genesis(AuthorityIndex::new(beyond)), None);
    }
    assert_eq!(compared, 23);
}

/// A primitive encoding of this crate's formats; `None` for those that are none of ours.
fn encode_primitive(
    vector: &Value,
    committees: &std::collections::BTreeMap<String, std::sync::Arc<Committee>>,
) -> Option<Vec<u8>> {
    let value = &vector["value"];
    let bytes = || unhex(&vector["bcs"]);
    let kind = text(&vector["type"]);
    match kind {
        "BlockRef" => Some(block_ref(value).to_bytes().to_vec()),
        "CommitRef" => Some(commit_ref(value).to_bytes().to_vec()),
        "ValidatorSet" => Some(ValidatorSet::decode(&bytes()).expect("a validator set").encode()),
        "Transaction" => {
            let length = usize::try_from(number(&vector["data_len"])).expect("small");
            let data: Vec<u8> =
                (0..length).map(|i| u8::try_from((31 * i + 1) % 256).expect("a byte")).collect();
            let block = Block { transactions: vec![Bytes::from(data)], ..Block::default() };
            // Before it: 24 bytes of numbers, no ancestors, one transaction; after it: no votes, no end of epoch.
            let encoding = block.encode();
            Some(encoding[26..encoding.len() - 2].to_vec())
        }
        _ if text(&vector["name"]) == "validator_set_digest" => {
            Some(committees["next4"].chain_id().as_bytes().to_vec())
        }
        _ => None,
    }
}

#[test]
fn primitives_are_encoded_as_the_original_does() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut compared = 0;
    for vector in list(&vectors.json("primitives.json")) {
        let Some(ours) = encode_primitive(vector, &committees) else { continue };
        assert_eq!(ours.len() as u64, number(&vector["bytes"]), "{}", vector["name"]);
        match vector.get("bcs_prefix") {
            Some(prefix) => assert!(ours.starts_with(&unhex(prefix)), "{}", vector["name"]),
            None => assert_eq!(ours, unhex(&vector["bcs"]), "{}", vector["name"]),
        }
        compared += 1;
    }
    assert_eq!(compared, 14, "block and commit references, transactions, validator sets and their digest");
}

#[test]
fn the_references_of_a_block_request_are_encoded_as_the_original_does() {
    let Some(vectors) = Vectors::find() else { return };
    let least = BlockRef::from_bytes(&[0; BlockRef::BYTES]);
    let request: (Vec<Vec<u8>>, Vec<u32>) = (vec![least.to_bytes().to_vec()], Vec::new());
    let json = vectors.json("wire.json");
    let vector = list(&json)
        .iter()
        .find(|vector| text(&vector["type"]).contains("BlockRef::MIN"))
        .expect("there is one");
    assert_eq!(bcs::to_bytes(&request).expect("it encodes"), unhex(&vector["bcs"]));
}

fn refs(values: &Value) -> Vec<BlockRef> {
    list(values).iter().map(block_ref).collect()
}

fn check_end_of_epoch(ours: Option<&EndOfEpochData>, fields: &Value, encoding: &[u8]) {
    assert_eq!(ours.is_none(), fields.is_null());
    let Some(ours) = ours else { return };
    assert_eq!(ours.next_epoch_start_timestamp_ms, number(&fields["next_epoch_start_timestamp_ms"]));
    assert_eq!(ours.next_validator_set.is_some(), !fields["next_validator_set"].is_null());
    assert_eq!(ours.state_hash, optional(&fields["state_hash"]));
    assert_eq!(ours.validator_set_signature, optional(&fields["validator_set_signature"]));
    assert_eq!(ours.aggregate_signature, optional(&fields["aggregate_signature"]));
    let bytes = unhex(&fields["bcs"]);
    assert!(encoding.ends_with(&bytes), "end-of-epoch data is the last field of the block");
}

fn optional<const N: usize>(value: &Value) -> Option<[u8; N]> {
    if value.is_null() { None } else { Some(unhex_array(value)) }
}

#[test]
fn blocks_are_read_field_by_field_and_written_byte_for_byte() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let json = vectors.json("blocks.json");
    assert_eq!(list(&json).len(), 38);
    for vector in list(&json) {
        let name = text(&vector["name"]);
        let bytes = unhex(&vector["signed_block_bcs"]);
        let view =
            BlockView::decode(&bytes, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let fields = &vector["fields"];
        assert_eq!(view.epoch(), Epoch::new(number(&fields["epoch"])), "{name}");
        assert_eq!(view.round(), Round::new(number_u32(&fields["round"])), "{name}");
        assert_eq!(view.author(), AuthorityIndex::new(number_u32(&fields["author"])), "{name}");
        assert_eq!(view.timestamp_ms(), number(&fields["timestamp_ms"]), "{name}");
        assert_eq!(view.ancestors().collect::<Vec<_>>(), refs(&fields["ancestors"]), "{name}");
        let votes: Vec<_> = list(&fields["commit_votes"]).iter().map(commit_ref).collect();
        assert_eq!(view.votes().collect::<Vec<CommitRef>>(), votes, "{name}");
        assert_eq!(view.signature(), unhex(&vector["signature"]), "{name}");
        check_end_of_epoch(view.end_of_epoch(), &fields["end_of_epoch_data"], view.signed_bytes());

        let block = owned(&view);
        assert_eq!(block.encode(), unhex(&vector["block_bcs"]), "{name}");
        let message = unhex_array(&vector["signing_message"]);
        assert_eq!(signing_message(&block.encode()), message, "{name}");
        let reference = block_ref(&vector["block_ref"]);
        assert_eq!(view.reference_and_message(), (reference, message), "{name}");
        if let Ok(signature) = <[u8; 64]>::try_from(view.signature()) {
            assert_eq!(block.sign(|_| signature), (reference, bytes.clone()), "{name}");
        } else {
            assert_eq!(block.unsigned(), (reference, bytes.clone()), "{name}");
        }
        let verified = view.verify(&committees[text(&vector["committee"])], ACCEPT_ALL);
        assert_eq!(verified.is_ok(), outcome(&vector["verify"]) == "ok", "{name}: {verified:?}");
    }
}

#[test]
fn commits_are_read_field_by_field_and_written_byte_for_byte() {
    let Some(vectors) = Vectors::find() else { return };
    let json = vectors.json("commits.json");
    assert_eq!(list(&json).len(), 5);
    for vector in list(&json) {
        let name = text(&vector["name"]);
        let bytes = unhex(&vector["commit_bcs"]);
        let header = CommitHeader::decode(Payload::new(bytes.clone()), &Limits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let fields = &vector["fields"];
        assert_eq!(header.reference.to_bytes(), *unhex(&vector["commit_ref_bcs"]), "{name}");
        assert_eq!(header.reference.digest.as_bytes(), &unhex_array(&vector["digest"]), "{name}");
        assert_eq!(header.reference.index.get(), number_u32(&fields["index"]), "{name}");
        assert_eq!(header.previous.as_bytes(), &unhex_array(&fields["previous_digest"]), "{name}");
        assert_eq!(header.timestamp_ms, number(&fields["timestamp_ms"]), "{name}");
        assert_eq!(header.epoch.get(), number(&fields["epoch"]), "{name}");
        assert_eq!(header.leader, block_ref(&fields["leader"]), "{name}");
        assert_eq!(*header.blocks, *refs(&fields["blocks"]), "{name}");
        assert_eq!(header.to_commit().encode(), (header.reference, bytes.to_vec()), "{name}");
    }
}

#[test]
fn blocks_that_only_the_original_s_ancestor_check_refuses_are_valid_by_themselves() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let json = vectors.json("check_ancestors.json");
    assert_eq!(list(&json).len(), 7);
    for vector in list(&json) {
        let bytes = unhex(&vector["signed_block_bcs"]);
        let view = BlockView::decode(&bytes, &Limits::default()).expect("it decodes");
        let verified = view.verify(&committees[text(&vector["committee"])], ACCEPT_ALL);
        assert!(verified.is_ok(), "{}: {verified:?}", vector["name"]);
        for ancestor in list(&vector["ancestors_bcs"]) {
            let bytes = unhex(ancestor);
            let ancestor = BlockView::decode(&bytes, &Limits::default()).expect("it decodes").reference();
            assert!(view.ancestors().any(|named| named == ancestor), "{}", vector["name"]);
        }
    }
}
