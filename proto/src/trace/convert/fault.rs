//! Errors, as they stand in verdicts.

use super::{Converted, Malformed, pb};
use soma_sync_core::{
    block::{BlockError, DecodeError, EndOfEpochError, InvalidNextCommittee, Items},
    certify::{CertifiedFault, CertifierError, CertifyError, CommitRule},
    job::ObserveError,
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitIndex, CommitRef, Epoch, Round, Stake},
};

/// An error that can be kept.
pub(super) trait Fault: Sized {
    fn write(&self) -> pb::Fault;
    fn read(fault: &pb::Fault) -> Converted<Self>;
}

/// A field of an error.
trait Field: Sized {
    fn put(&self, fault: &mut pb::Fault);
    fn take(fields: &mut Fields<'_>) -> Converted<Self>;
}

/// The fields of an error that have not been read.
struct Fields<'a> {
    numbers: &'a [u64],
    references: &'a [u8],
    inner: Option<&'a pb::Fault>,
}

impl<'a> Fields<'a> {
    fn new(fault: &'a pb::Fault) -> Self {
        Self { numbers: &fault.numbers, references: &fault.references, inner: fault.inner.as_deref() }
    }

    fn number(&mut self) -> Converted<u64> {
        let (first, rest) = self.numbers.split_first().ok_or(Malformed("an error lacks a number"))?;
        self.numbers = rest;
        Ok(*first)
    }

    fn reference<const N: usize>(&mut self) -> Converted<&'a [u8; N]> {
        let (first, rest) =
            self.references.split_first_chunk().ok_or(Malformed("an error lacks a reference"))?;
        self.references = rest;
        Ok(first)
    }

    /// The error that was read, where nothing is left over.
    fn finish<T>(self, error: T) -> Converted<T> {
        match self {
            Self { numbers: [], references: [], inner: None } => Ok(error),
            Self { .. } => Err(Malformed("an error has more fields than it can")),
        }
    }
}

/// Numbers, in their own types.
macro_rules! numbers {
    ($($type:ty: |$value:ident| $number:expr, |$read:ident| $back:expr;)*) => {$(
        impl Field for $type {
            fn put(&self, fault: &mut pb::Fault) {
                let $value = *self;
                fault.numbers.push($number);
            }
            fn take(fields: &mut Fields<'_>) -> Converted<Self> {
                let $read = fields.number()?;
                $back.map_err(|_| Malformed("a number of an error is too large"))
            }
        }
    )*};
}
numbers! {
    u64: |value| value, |read| Ok::<_, Malformed>(read);
    u32: |value| u64::from(value), |read| u32::try_from(read);
    u8: |value| u64::from(value), |read| u8::try_from(read);
    usize: |value| value as u64, |read| usize::try_from(read);
    Epoch: |value| value.get(), |read| Ok::<_, Malformed>(Self::new(read));
    Stake: |value| value.get(), |read| Ok::<_, Malformed>(Self::new(read));
    Round: |value| u64::from(value.get()), |read| u32::try_from(read).map(Self::new);
    AuthorityIndex: |value| u64::from(value.get()), |read| u32::try_from(read).map(Self::new);
    CommitIndex: |value| u64::from(value.get()), |read| u32::try_from(read).map(Self::new);
    Items: |value| match value {
        Items::Ancestors => 1,
        Items::Transactions => 2,
        Items::Votes => 3,
        Items::Blocks => 4,
    }, |read| match read {
        1 => Ok(Self::Ancestors),
        2 => Ok(Self::Transactions),
        3 => Ok(Self::Votes),
        4 => Ok(Self::Blocks),
        _ => Err(()),
    };
}

impl Field for BlockRef {
    fn put(&self, fault: &mut pb::Fault) {
        fault.references = [&fault.references[..], &self.to_bytes()].concat().into();
    }
    fn take(fields: &mut Fields<'_>) -> Converted<Self> {
        fields.reference().map(Self::from_bytes)
    }
}

impl Field for CommitRef {
    fn put(&self, fault: &mut pb::Fault) {
        fault.references = [&fault.references[..], &self.to_bytes()].concat().into();
    }
    fn take(fields: &mut Fields<'_>) -> Converted<Self> {
        fields.reference().map(Self::from_bytes)
    }
}

/// Evidence: its bytes came in before.
impl Field for Payload {
    fn put(&self, fault: &mut pb::Fault) {
        fault.numbers.extend([self.len() as u64, self.fingerprint()]);
    }
    fn take(fields: &mut Fields<'_>) -> Converted<Self> {
        Ok(Self::absent(usize::take(fields)?, fields.number()?))
    }
}

impl<T: Fault> Field for T {
    fn put(&self, fault: &mut pb::Fault) {
        fault.inner = Some(Box::new(self.write()));
    }
    fn take(fields: &mut Fields<'_>) -> Converted<Self> {
        Self::read(fields.inner.take().ok_or(Malformed("an error lacks its cause"))?)
    }
}

impl Field for Option<CertifierError> {
    fn put(&self, fault: &mut pb::Fault) {
        if let Some(error) = self {
            error.put(fault);
        }
    }
    fn take(fields: &mut Fields<'_>) -> Converted<Self> {
        fields.inner.take().map(CertifierError::read).transpose()
    }
}

/// The variants of an error, by code.
macro_rules! faults {
    ($type:ident { $(
        $code:literal => $variant:ident $({ $($field:ident),* })? $(($item:ident))?,
    )* }) => {
        impl Fault for $type {
            fn write(&self) -> pb::Fault {
                let mut fault = pb::Fault::default();
                match self {$(
                    Self::$variant $({ $($field),* })? $(($item))? => {
                        fault.code = $code;
                        $($($field.put(&mut fault);)*)?
                        $($item.put(&mut fault);)?
                    }
                )*}
                fault
            }
            fn read(fault: &pb::Fault) -> Converted<Self> {
                #[allow(unused_mut, reason = "not every variant has fields")]
                let mut fields = Fields::new(fault);
                match fault.code {
                    $($code => {
                        $($(let $field = Field::take(&mut fields)?;)*)?
                        $(let $item = Field::take(&mut fields)?;)?
                        fields.finish(Self::$variant $({ $($field),* })? $(($item))?)
                    })*
                    _ => Err(Malformed("an error of an unknown kind")),
                }
            }
        }
    };
}

faults! { DecodeError {
    1 => UnexpectedEnd,
    2 => Trailing { left },
    3 => LengthNotCanonical,
    4 => LengthOverflow,
    5 => LengthTooLarge { length },
    6 => OptionTag { tag },
    7 => Utf8,
    8 => FixedLength { expected, found },
    9 => TooMany { items, count, max },
    10 => TooLarge { bytes, max },
}}

faults! { InvalidNextCommittee {
    1 => Empty,
    2 => TooMany { count, max },
    3 => DuplicateName { second },
    4 => Stake { sum },
    5 => Key { authority },
    6 => AuthorityKey { authority },
    7 => NoNextEpoch,
}}

faults! { EndOfEpochError {
    1 => SignatureWithoutSet,
    2 => AggregateWithoutSet,
    3 => AggregateWithoutSignature,
    4 => SignaturePoint,
    5 => Signature,
    6 => AggregatePoint,
    7 => Aggregate,
}}

faults! { BlockError {
    1 => Decode(error),
    2 => OtherBlock { found },
    3 => OtherReference { found },
    4 => Epoch { expected, found },
    5 => GenesisRound,
    6 => Author { author },
    7 => SignatureLength { length },
    8 => Signature,
    9 => TooManyAncestors { count, max },
    10 => AncestorAuthor { author },
    11 => AncestorPosition { position, author },
    12 => AncestorRound { ancestor, block },
    13 => GenesisAncestor { ancestor },
    14 => AncestorEpoch { found },
    15 => DuplicateAncestor { author },
    16 => ParentStake { stake },
    17 => Transaction { position },
    18 => EndOfEpoch(error),
}}

faults! { CertifierError {
    1 => Block(error),
    2 => NoVote,
}}

faults! { CertifyError {
    1 => Empty,
    2 => TooManyCommits { count, max },
    3 => TooManyCertifiers { count, max },
    4 => Commit { position, error },
    5 => Start { expected, found },
    6 => Sequence { previous, found },
    7 => Link { index },
    8 => EpochChange { first, found },
    9 => NoQuorum { stake, first_bad },
}}

faults! { CommitRule {
    1 => Timestamp { previous_ms },
    2 => NoBlocks,
    3 => Leader,
    4 => BlockTwice { block },
    5 => BlockEpoch { block },
    6 => BlockAuthor { block },
    7 => BlockRound { block },
}}

faults! { CertifiedFault {
    1 => Commit { reference, rule, payload },
    2 => Block { reference, error, payload },
}}

faults! { ObserveError {
    1 => Commit(error),
    2 => Count { named, given },
    3 => Block { position, error },
}}
