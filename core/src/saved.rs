//! A machine's state as bytes and back, for traces whose beginning is gone (feature `trace`).
//!
//! Each type that the state is made of names its fields once, by `saved!` beside it; a field that is forgotten does not
//! compile. The encoding is private to one layout: numbers as varints in their shortest form, a byte for each variant,
//! lists behind their length, maps with ascending keys. So a state has one encoding. Of payloads, length and fingerprint
//! are kept, as in a thin trace. A committee stands where it first occurs, and by its number from then on: hundreds of
//! jobs and votes share one, and its keys are checked once.
//!
//! Reading is total. Nothing is allocated before its bytes are seen, so memory is bounded by a small multiple of the bytes.

/// Says what a type's encoding is made of: `struct Name { fields }`, `struct Name { fields; no field }` for one that is
/// empty in what is saved, `struct Name(value)`, or `enum Name { 0 => Unit, 1 => Tuple(it), 2 => Struct { fields } }`.
#[cfg(feature = "trace")]
macro_rules! saved {
    (struct $type:ident $(($($item:ident),*))? $({ $($field:ident),* $(,)? $(; no $none:ident)? })?) => {
        impl $crate::saved::Saved for $type {
            fn save(&self, to: &mut $crate::saved::Saver) {
                let Self $(($($item),*))? $({ $($field,)* $($none: _)? })? = self;
                $($($crate::saved::Saved::save($item, to);)*)?
                $($($crate::saved::Saved::save($field, to);)*)?
            }
            fn restore(
                from: &mut $crate::saved::Restorer<'_>,
            ) -> Result<Self, $crate::saved::RestoreError> {
                $($(let $item = $crate::saved::Saved::restore(from)?;)*)?
                $($(let $field = $crate::saved::Saved::restore(from)?;)*)?
                Ok(Self $(($($item),*))? $({ $($field,)* $($none: Default::default())? })?)
            }
        }
    };
    (enum $type:ident {
        $($tag:literal => $variant:ident $(($($item:ident),*))? $({ $($field:ident),* })?),* $(,)?
    }) => {
        impl $crate::saved::Saved for $type {
            fn save(&self, to: &mut $crate::saved::Saver) {
                match self {
                    $(Self::$variant $(($($item),*))? $({ $($field),* })? => {
                        to.tag($tag);
                        $($($crate::saved::Saved::save($item, to);)*)?
                        $($($crate::saved::Saved::save($field, to);)*)?
                    })*
                }
            }
            fn restore(
                from: &mut $crate::saved::Restorer<'_>,
            ) -> Result<Self, $crate::saved::RestoreError> {
                match from.tag()? {
                    $($tag => {
                        $($(let $item = $crate::saved::Saved::restore(from)?;)*)?
                        $($(let $field = $crate::saved::Saved::restore(from)?;)*)?
                        Ok(Self::$variant $(($($item),*))? $({ $($field),* })?)
                    })*
                    _ => Err($crate::saved::RestoreError::Damaged(concat!("no such ", stringify!($type)))),
                }
            }
        }
    };
}

/// Without the feature, what is said of states is not compiled.
#[cfg(not(feature = "trace"))]
macro_rules! saved {
    ($($said:tt)*) => {};
}

#[cfg(feature = "trace")]
mod codec;

#[cfg(feature = "trace")]
pub use codec::RestoreError;
#[cfg(feature = "trace")]
pub(crate) use codec::{Restorer, Saved, Saver};
