//! Who we are: an ed25519 key, kept in a file that only its owner can read.

use rustls::{
    crypto::{SecureRandom, ring},
    pki_types::PrivatePkcs8KeyDer,
    sign::SigningKey,
};
use soma_sync_core::types::PeerId;
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What PKCS#8 puts before the seed of an ed25519 key (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The size of an identity file: 64 hex digits and a newline.
const FILE_BYTES: u64 = 65;

/// An ed25519 key pair: what proves our [`PeerId`] to others. Clones are the same identity.
#[derive(Clone)]
pub struct Identity {
    seed: [u8; 32],
    peer_id: PeerId,
    key: Arc<dyn SigningKey>,
}

/// Why there is no identity: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system gave no randomness for a new key.
    #[error(
        "the system gives no randomness for a new identity; try again, or bring an identity file of your own"
    )]
    NoRandomness,
    /// The file cannot be read.
    #[error("cannot read the identity file {path}: check the path and who owns it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not exist and cannot be made.
    #[error("cannot make the identity file {path}: its directory must exist and be writable")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something at the path, but no file: a directory, or a device.
    #[error("{path} is no regular file: name another identity file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner can read or change the file.
    #[error(
        "others have access to the identity file {path} (mode {mode:04o}): run `chmod 600` on it, or remove it to get \
         a new identity if they may have read it"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file has another size than an identity has, because it was cut short or is something else.
    #[error(
        "the identity file {path} has {found} bytes instead of {FILE_BYTES} (64 hex digits and a newline): restore it, \
         or move it away to get a new identity"
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
    },
    /// The file has the right size, but is not 64 hex digits and a newline.
    #[error(
        "the identity file {path} is not 64 hex digits and a newline: restore it, or move it away to get a new identity"
    )]
    NotHex {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// A new identity from the system's randomness.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NoRandomness`].
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::from_seed(random()?))
    }

    /// The identity of this ed25519 seed (the secret key of RFC 8032).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut pkcs8 = [0; 48];
        pkcs8[..16].copy_from_slice(&PKCS8_PREFIX);
        pkcs8[16..].copy_from_slice(&seed);
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .expect("every 32 bytes are an ed25519 seed, and the prefix is that of RFC 8410");
        let info = key.public_key().expect("an ed25519 key has a public key");
        let peer_id = crate::tls::peer_of_public_key(&info).expect("the public key of an ed25519 key is one");
        Self { seed, peer_id, key }
    }

    /// Reads the identity in the file at `path`; where there is none, makes a new one and the file, readable by its
    /// owner only. An existing file is never written to, and a new one appears whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`Identity::load`] of a file that is there; [`IdentityError::NoRandomness`] and [`IdentityError::Create`] of one
    /// that is not.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let identity = Self::generate()?;
        match create(path, &identity.seed) {
            Ok(()) => Ok(identity),
            // Somebody else made it in the meantime: that one counts.
            Err(CreateError::Exists) => Self::load(path),
            Err(CreateError::NoRandomness) => Err(IdentityError::NoRandomness),
            Err(CreateError::Io(source)) => Err(IdentityError::Create { path: path.to_owned(), source }),
        }
    }

    /// Reads the identity in the file at `path`, which must be there.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, is no regular file, can be read by others than its owner, or holds no identity.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let read_error = |source| IdentityError::Read { path: path.to_owned(), source };
        // Looked at before it is opened: opening a pipe would wait for whoever writes to it.
        if !fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(IdentityError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if let Some(mode) = mode_too_open(&metadata) {
            return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
        }
        if metadata.len() != FILE_BYTES {
            return Err(IdentityError::WrongLength { path: path.to_owned(), found: metadata.len() });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut text).map_err(read_error)?;
        match seed_of(&text) {
            Some(seed) => Ok(Self::from_seed(seed)),
            None => Err(IdentityError::NotHex { path: path.to_owned() }),
        }
    }

    /// The public key.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The key, to sign handshakes with.
    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.key)
    }
}

/// The public half only: the seed is in no log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let provider = ring::default_provider();
    let source: &dyn SecureRandom = provider.secure_random;
    let mut bytes = [0; N];
    source.fill(&mut bytes).map_err(|_| IdentityError::NoRandomness)?;
    Ok(bytes)
}

fn seed_of(text: &[u8]) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text.strip_suffix(b"\n")?, &mut seed).ok()?;
    Some(seed)
}

enum CreateError {
    Exists,
    NoRandomness,
    Io(io::Error),
}

/// Writes `seed` into a new file at `path`. It is written and synced under another name and then linked, which fails
/// where the path is taken: so no reader sees half of it, and no file is overwritten.
fn create(path: &Path, seed: &[u8; 32]) -> Result<(), CreateError> {
    let suffix: [u8; 8] = random().map_err(|_| CreateError::NoRandomness)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let temporary = directory.join(format!(".identity-{}", hex::encode(suffix)));
    let linked = write_new(&temporary, seed).and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    match linked {
        Ok(()) => removed.and_then(|()| sync_directory(directory)).map_err(CreateError::Io),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CreateError::Exists),
        Err(error) => Err(CreateError::Io(error)),
    }
}

fn write_new(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(format!("{}\n", hex::encode(seed)).as_bytes())?;
    file.sync_all()
}

/// Makes a new name in `directory` survive a crash.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Directories cannot be synced here.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// The permission bits, if they let others than the owner in.
#[cfg(unix)]
fn mode_too_open(metadata: &fs::Metadata) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// There are no permission bits here.
#[cfg(not(unix))]
fn mode_too_open(_metadata: &fs::Metadata) -> Option<u32> {
    None
}
