//! The durable store: one redb file.

mod overlay;
pub(super) mod tables;
mod write;

use super::{
    Certifier, CommitHead, Store, StoreError, StoredCommit,
    rules::{self, State, View, damaged},
};
use overlay::Overlay;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    StorageError, TableError, TransactionError,
};
use soma_sync_core::{
    command::Batch,
    committee::Committee,
    payload::Payload,
    start::Start,
    types::{AuthorityIndex, BlockRef, ChainId, CommitIndex, CommitRef, Epoch},
};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use tables::{BLOCKS, COMMITS, COMMITTEES, META, VOTES, VoteKey, VoteValue, fault};

/// Name of the file in the store's directory.
pub(super) const FILE_NAME: &str = "soma.redb";
/// Name under which the file is made, before it is whole.
pub(super) const NEW_FILE_NAME: &str = "soma.redb.new";
/// Committees kept in memory once they were read: their keys are dear to decode.
const CACHED_COMMITTEES: usize = 8;

/// How the durable store works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// Bytes of the file that are kept in memory. More spares reads; 64 MiB by default.
    pub cache_bytes: u64,
    /// Up to so many bytes of file, all of it is read and checked when the store is opened, so that damage is found there
    /// and not when the damaged part is used. Takes about a second per gigabyte; 1 GiB by default.
    ///
    /// Where the file is larger, and what is damaged are the database's own records, two things can come of it. A read
    /// can take up to 4 GiB of memory, since the database believes a page that says it is so large. And a write can end
    /// the process, since the database panics while it unwinds. Nothing that was stored is lost by it, and with this as
    /// high as it goes the file is refused with [`StoreError::Damaged`].
    pub check_up_to_bytes: u64,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, check_up_to_bytes: 1024 * 1024 * 1024 }
    }
}

/// A store in one file. Each batch is one transaction, which is on disk when [`Store::apply`] returns.
///
/// The file is locked while it is open. It is closed when the store is dropped; a file whose process was killed opens
/// as quickly, at the last batch that was stored. A file that changed at rest yields errors, never other data: the
/// database's panics over such a file are contained, which needs unwinding. What cannot be contained are its aborts, and
/// the memory that it takes, so a file is checked when it is opened: see [`RedbOptions::check_up_to_bytes`].
pub struct RedbStore {
    path: PathBuf,
    chain_id: ChainId,
    opener: Opener,
    read_only: bool,
    /// `None` after reopening failed.
    database: RwLock<Option<Handle>>,
    /// Whether a write failed. Writes wait for one another here.
    failed: Mutex<bool>,
    /// Some of the committees that were read.
    committees: Mutex<BTreeMap<Epoch, Arc<Committee>>>,
}

/// Opens the database anew, each time in the same way.
pub(super) type Opener = Box<dyn Fn() -> Result<Handle, DatabaseError> + Send + Sync>;

/// The open database.
pub(super) enum Handle {
    /// In its file, or over it.
    Database(Database),
    /// One that cannot write, not even when it is closed.
    ReadOnly(ReadOnlyDatabase),
}

impl Handle {
    fn begin_read(&self) -> Result<ReadTransaction, TransactionError> {
        match self {
            Self::Database(database) => database.begin_read(),
            Self::ReadOnly(database) => database.begin_read(),
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).field("chain_id", &self.chain_id).finish()
    }
}

impl RedbStore {
    /// Opens the store in a directory. Where there is none, makes one from the committee of the first epoch.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] where there is no store and no genesis, [`StoreError::OtherChain`] where the store is
    /// not of that genesis, [`StoreError::Locked`], [`StoreError::Foreign`], [`StoreError::Damaged`] and
    /// [`StoreError::Io`] as they say.
    pub fn open(directory: &Path, genesis: Option<&Committee>) -> Result<Self, StoreError> {
        Self::open_with(directory, genesis, RedbOptions::default())
    }

    /// Opens the store in a directory, with other options than the default ones.
    ///
    /// # Errors
    ///
    /// As [`RedbStore::open`].
    pub fn open_with(
        directory: &Path,
        genesis: Option<&Committee>,
        options: RedbOptions,
    ) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        if !path.try_exists().map_err(|error| io_error(&path, &error))? {
            let Some(genesis) = genesis else { return Err(StoreError::Missing { path }) };
            create(directory, &path, genesis)?;
        }
        let file = path.clone();
        let opener: Opener =
            Box::new(move || builder(options, fs::metadata(&file)?.len()).open(&file).map(Handle::Database));
        let database = open_database(&path, &opener)?;
        Self::new(path, database, opener, genesis.map(Committee::chain_id), false)
    }

    /// Opens the store in a directory to read it, and changes nothing in its file: for tools. Several processes may read
    /// a store at once, while none writes.
    ///
    /// # Errors
    ///
    /// As [`RedbStore::open`]; [`StoreError::ReadOnly`] comes of each write.
    pub fn open_read_only(directory: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        if !path.try_exists().map_err(|error| io_error(&path, &error))? {
            return Err(StoreError::Missing { path });
        }
        let file = path.clone();
        let opener: Opener = Box::new(move || {
            let file_bytes = fs::metadata(&file)?.len();
            let builder = builder(options, file_bytes);
            if file_bytes > options.check_up_to_bytes {
                // What is not checked had better not be written to, not even in memory.
                match builder.open_read_only(&file) {
                    // Its last process was killed.
                    Err(DatabaseError::RepairAborted) => {}
                    other => return other.map(Handle::ReadOnly),
                }
            }
            builder.create_with_backend(Overlay::open(&file)?).map(Handle::Database)
        });
        let database = open_database(&path, &opener)?;
        Self::new(path, database, opener, None, true)
    }

    fn new(
        path: PathBuf,
        database: Handle,
        opener: Opener,
        expected: Option<ChainId>,
        read_only: bool,
    ) -> Result<Self, StoreError> {
        let chain_id = check_chain(&path, &database, expected)?;
        Ok(Self {
            path,
            chain_id,
            opener,
            read_only,
            database: RwLock::new(Some(database)),
            failed: Mutex::new(false),
            committees: Mutex::new(BTreeMap::new()),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` with the database; a panic within is damage.
    fn with_database<T>(&self, f: impl FnOnce(&Handle) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Failed)?;
        guarded(&self.path, || f(database))
    }

    /// Runs `f` in a transaction that sees the state as it is now.
    fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with_database(|database| f(&database.begin_read().map_err(fault)?))
    }

    /// Runs `write`, unless an earlier write failed.
    fn write<T>(&self, write: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly { path: self.path.clone() });
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(StoreError::Failed);
        }
        let result = self.with_database(|database| match database {
            Handle::Database(database) => write(database),
            Handle::ReadOnly(_) => Err(StoreError::ReadOnly { path: self.path.clone() }),
        });
        *failed = result.is_err();
        result
    }

    fn committees(&self) -> MutexGuard<'_, BTreeMap<Epoch, Arc<Committee>>> {
        self.committees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committee_in(
        &self,
        transaction: &ReadTransaction,
        epoch: Epoch,
    ) -> Result<Option<Arc<Committee>>, StoreError> {
        if let Some(known) = self.committees().get(&epoch) {
            return Ok(Some(Arc::clone(known)));
        }
        let table = transaction.open_table(COMMITTEES).map_err(fault)?;
        let Some(committee) = tables::read_committee(&table, epoch)?.map(Arc::new) else { return Ok(None) };
        let mut known = self.committees();
        known.insert(epoch, Arc::clone(&committee));
        if known.len() > CACHED_COMMITTEES {
            known.pop_first();
        }
        Ok(Some(committee))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        close(&self.path, database);
    }
}

impl Store for RedbStore {
    fn start(&self) -> Result<Start, StoreError> {
        self.read(|transaction| rules::start(&Snapshot::new(self, transaction)?))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|database| write::apply(database, batch))
    }

    fn reopen(&self) -> Result<Start, StoreError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = true;
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        close(&self.path, database.take());
        self.committees().clear();
        let opened = open_database(&self.path, &self.opener)?;
        check_chain(&self.path, &opened, Some(self.chain_id))?;
        *database = Some(opened);
        drop(database);
        let start = self.start()?;
        *failed = false;
        Ok(start)
    }

    fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
        self.read(|transaction| self.committee_in(transaction, epoch))
    }

    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        self.read(|transaction| read_in_commits(transaction, index, |table| tables::read_head(table, index)))
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<StoredCommit>, StoreError> {
        let commit = self.read(|transaction| {
            read_in_commits(transaction, index, |table| tables::read_commit(table, index))
        })?;
        Ok(commit.map(|commit| StoredCommit {
            reference: commit.reference,
            epoch: commit.epoch,
            blocks: commit.blocks,
            payload: commit.payload,
        }))
    }

    fn block(&self, reference: &BlockRef) -> Result<Option<Payload>, StoreError> {
        self.read(|transaction| {
            tables::read_block(&transaction.open_table(BLOCKS).map_err(fault)?, reference)
        })
    }

    fn certificate(&self, commit: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
        self.read(|transaction| rules::certificate(&Snapshot::new(self, transaction)?, commit))
    }

    fn prune(&self, lowest: CommitIndex) -> Result<(), StoreError> {
        while self.write(|database| write::prune_step(database, lowest))? {}
        Ok(())
    }
}

/// What a transaction sees.
struct Snapshot<'a> {
    store: &'a RedbStore,
    transaction: &'a ReadTransaction,
    state: State,
    commits: ReadOnlyTable<u32, &'static [u8]>,
    votes: ReadOnlyTable<&'static VoteKey, &'static VoteValue>,
}

impl<'a> Snapshot<'a> {
    fn new(store: &'a RedbStore, transaction: &'a ReadTransaction) -> Result<Self, StoreError> {
        let state = read_state(transaction)?;
        let commits = transaction.open_table(COMMITS).map_err(fault)?;
        let votes = transaction.open_table(VOTES).map_err(fault)?;
        Ok(Self { store, transaction, state, commits, votes })
    }
}

impl View for Snapshot<'_> {
    fn state(&self) -> State {
        self.state
    }

    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        tables::read_head(&self.commits, index)
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
        self.store.committee_in(self.transaction, epoch)
    }

    fn next_vote(
        &self,
        commit: &CommitRef,
        epoch: Epoch,
        from: AuthorityIndex,
    ) -> Result<Option<Certifier>, StoreError> {
        tables::next_vote(&self.votes, commit, epoch, from)
    }
}

/// Reads the record of a commit, which must be there if the store's state says so.
fn read_in_commits<T>(
    transaction: &ReadTransaction,
    index: CommitIndex,
    read: impl FnOnce(&ReadOnlyTable<u32, &'static [u8]>) -> Result<Option<T>, StoreError>,
) -> Result<Option<T>, StoreError> {
    let record = read(&transaction.open_table(COMMITS).map_err(fault)?)?;
    if record.is_none() && read_state(transaction)?.holds(index) {
        return Err(rules::gone(index));
    }
    Ok(record)
}

fn read_state(transaction: &ReadTransaction) -> Result<State, StoreError> {
    tables::read_state(&transaction.open_table(META).map_err(fault)?)
}

/// Runs `f`, taking a panic of the database for damage, and naming the file in errors.
fn guarded<T>(path: &Path, f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let panicked = |_| Err(damaged("the database cannot make sense of its file"));
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(panicked).map_err(|error| match error {
        StoreError::Io { reason, .. } => StoreError::Io { path: path.to_owned(), reason },
        other => other,
    })
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), reason: error.to_string() }
}

/// Opens a file of so many bytes.
pub(super) fn builder(options: RedbOptions, file_bytes: u64) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX));
    builder.set_check_integrity_on_open(file_bytes <= options.check_up_to_bytes);
    builder
}

/// Closes the database. Every batch that was stored is on disk already, so a failure loses nothing but time at the
/// next opening.
fn close(path: &Path, database: Option<Handle>) {
    let closed = guarded(path, || match database {
        Some(Handle::Database(database)) => database.close().map_err(fault),
        Some(Handle::ReadOnly(_)) | None => Ok(()),
    });
    if let Err(error) = closed {
        tracing::warn!(%error, "the store did not close cleanly");
    }
}

fn open_database(path: &Path, opener: &Opener) -> Result<Handle, StoreError> {
    guarded(path, || {
        let database = opener().map_err(|error| open_error(path, error))?;
        check_version(path, &database)?;
        Ok(database)
    })
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { path }
        }
        DatabaseError::UpgradeRequired(_) => StoreError::Foreign { path, reason: error.to_string() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Foreign { path, reason: error.to_string() }
        }
        other => fault(other),
    }
}

fn check_version(path: &Path, database: &Handle) -> Result<(), StoreError> {
    let foreign = |reason: String| StoreError::Foreign { path: path.to_owned(), reason };
    let transaction = database.begin_read().map_err(fault)?;
    let meta = transaction.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => fault(error),
        other => foreign(other.to_string()),
    })?;
    match tables::read_version(&meta)? {
        Some(tables::VERSION) => Ok(()),
        Some(version) => Err(foreign(format!("its version is {version}, not {}", tables::VERSION))),
        None => Err(foreign("it does not say its version".into())),
    }
}

/// The chain that the store holds, which must be the expected one where there is one.
fn check_chain(path: &Path, database: &Handle, expected: Option<ChainId>) -> Result<ChainId, StoreError> {
    let found = guarded(path, || Ok(read_state(&database.begin_read().map_err(fault)?)?.chain_id))?;
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(StoreError::OtherChain { path: path.to_owned(), expected, found }),
        None => Ok(found),
    }
}

/// Makes the file of an empty store. It gets its name when it is whole, so that a crash leaves nothing that could be
/// taken for a store.
fn create(directory: &Path, path: &Path, genesis: &Committee) -> Result<(), StoreError> {
    fs::create_dir_all(directory).map_err(|error| io_error(directory, &error))?;
    let new = directory.join(NEW_FILE_NAME);
    let builder = builder(RedbOptions::default(), 0);
    let database = match guarded(&new, || builder.create(&new).map_err(|error| open_error(&new, error))) {
        Err(StoreError::Foreign { .. } | StoreError::Damaged { .. }) => {
            // What an earlier attempt left, which nobody has open.
            fs::remove_file(&new).map_err(|error| io_error(&new, &error))?;
            guarded(&new, || builder.create(&new).map_err(|error| open_error(&new, error)))
        }
        other => other,
    }?;
    guarded(&new, || write::initialize(&database, genesis))?;
    // Another process may have made the store before this one had the lock of the new file.
    if path.try_exists().map_err(|error| io_error(path, &error))? {
        return Ok(());
    }
    fs::rename(&new, path).map_err(|error| io_error(path, &error))?;
    close(path, Some(Handle::Database(database)));
    sync_directory(directory)
}

/// The store in a database that is no file, made where it is empty.
#[cfg(test)]
pub(super) fn open_on(path: PathBuf, opener: Opener, genesis: &Committee) -> Result<RedbStore, StoreError> {
    let database = opener().map_err(|error| open_error(&path, error))?;
    if let (Err(_), Handle::Database(database)) = (check_version(&path, &database), &database) {
        write::initialize(database, genesis)?;
    }
    RedbStore::new(path, database, opener, Some(genesis.chain_id()), false)
}

/// Makes names in a directory durable, where the system has a way to.
fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io_error(directory, &error))?;
    }
    Ok(())
}
