//! A file that is only read, under a database that writes.

use redb::{BackendError, StorageBackend, backends::FileBackend};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Bound,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bytes that are kept together once one of them was written: the database's pages are as large.
const BLOCK: usize = 4096;

/// What is written stays in memory. The database writes when it is opened, after it checked its file or its last process
/// was killed, and when it is closed: some pages for each gigabyte. Locks are shared: those of others who read the file
/// do not stand against them, and one who writes does.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the file's length was looked at: it is once it is locked, when it is first needed.
    begun: bool,
    len: u64,
    /// Up to here the file says what is not in `written`; after it are zeros.
    file_len: u64,
    /// By their number.
    written: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    pub(super) fn open(path: &Path) -> Result<Self, redb::DatabaseError> {
        Ok(Self { file: FileBackend::new(File::open(path)?)?, state: Mutex::default() })
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.begun {
            let len = self.file.len()?;
            (state.begun, state.len, state.file_len) = (true, len, len);
        }
        Ok(state)
    }
}

impl State {
    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from_file = out.len().min(self.file_len.saturating_sub(offset).try_into().unwrap_or(usize::MAX));
        let (stored, rest) = out.split_at_mut(from_file);
        if !stored.is_empty() {
            file.read(offset, stored)?;
        }
        rest.fill(0);
        for (number, at, len) in blocks(offset, out.len()) {
            if let Some(block) = self.written.get(&number) {
                let start = to_usize(number * BLOCK as u64 + at as u64 - offset);
                out[start..start + len].copy_from_slice(&block[at..at + len]);
            }
        }
        Ok(())
    }
}

/// The blocks of a range: the number of each, and from where in it how many bytes belong to the range.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    let block = BLOCK as u64;
    (offset / block..end.div_ceil(block)).map(move |number| {
        let (first, last) = (offset.max(number * block), end.min((number + 1) * block));
        (number, to_usize(first % block), to_usize(last - first))
    })
}

/// Of a length or place within a buffer.
fn to_usize(within: u64) -> usize {
    usize::try_from(within).unwrap_or(usize::MAX)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.read(&self.file, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let state = &mut *self.state()?;
        state.len = len;
        state.file_len = state.file_len.min(len);
        state.written.split_off(&len.div_ceil(BLOCK as u64));
        // What follows a block's cut is zero when the file grows again.
        if let Some(block) = state.written.get_mut(&(len / BLOCK as u64)) {
            block[to_usize(len % BLOCK as u64)..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let state = &mut *self.state()?;
        let mut rest = data;
        for (number, at, len) in blocks(offset, data.len()) {
            let (now, later) = rest.split_at(len);
            rest = later;
            if !state.written.contains_key(&number) {
                let mut block = Box::new([0; BLOCK]);
                state.read(&self.file, number * BLOCK as u64, &mut *block)?;
                state.written.insert(number, block);
            }
            if let Some(block) = state.written.get_mut(&number) {
                block[at..at + len].copy_from_slice(now);
            }
        }
        state.len = state.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[derive(Clone, Debug)]
    enum Order {
        Read(u64, usize),
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn orders() -> impl Strategy<Value = Vec<Order>> {
        let (offset, len) = (0..20_000_u64, 0..9_000_usize);
        let order = prop_oneof![
            (offset.clone(), len).prop_map(|(offset, len)| Order::Read(offset, len)),
            (offset.clone(), proptest::collection::vec(any::<u8>(), 0..9_000))
                .prop_map(|(offset, data)| Order::Write(offset, data)),
            offset.prop_map(Order::Length),
        ];
        proptest::collection::vec(order, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Against plain bytes; and the file stays as it was.
        #[test]
        fn something_else_is_read_than_from_plain_bytes(
            stored in proptest::collection::vec(any::<u8>(), 0..12_000),
            orders in orders(),
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("file");
            fs::write(&path, &stored).expect("a file");
            let overlay = Overlay::open(&path).expect("the file");
            let mut plain = stored.clone();
            for order in orders {
                match order {
                    Order::Read(offset, len) => {
                        let mut out = vec![7; len];
                        let start = to_usize(offset);
                        let read = overlay.read(offset, &mut out).ok().map(|()| &out[..]);
                        prop_assert_eq!(read, plain.get(start..start + len));
                    }
                    Order::Write(offset, data) => {
                        overlay.write(offset, &data).expect("it is kept");
                        let start = to_usize(offset);
                        plain.resize(plain.len().max(start + data.len()), 0);
                        plain[start..start + data.len()].copy_from_slice(&data);
                    }
                    Order::Length(len) => {
                        overlay.set_len(len).expect("it is kept");
                        plain.resize(to_usize(len), 0);
                    }
                }
                prop_assert_eq!(overlay.len().expect("a length"), plain.len() as u64);
            }
            let mut all = vec![7; plain.len()];
            overlay.read(0, &mut all).expect("all of it");
            prop_assert!(all == plain, "something else at the end");
            prop_assert!(fs::read(&path).expect("the file") == stored, "the file was written to");
        }
    }
}
