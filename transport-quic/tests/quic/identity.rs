//! The file that holds an identity.

use soma_sync_transport_quic::{Identity, IdentityError};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("identity");
    (directory, path)
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, content).expect("a writable directory");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is our file");
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("it is there");
    entries.map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned()).collect()
}

/// What loading `path` fails with; what is in the file must survive it.
fn refusal(path: &Path) -> IdentityError {
    let before = fs::read(path).ok();
    let error = Identity::load_or_create(path).expect_err("it must not be taken");
    assert_eq!(fs::read(path).ok(), before, "the file was changed");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "does not say where: {error}");
    error
}

#[test]
fn a_new_identity_is_its_owners_alone_and_the_same_ever_after() {
    let (directory, path) = place();
    let made = Identity::load_or_create(&path).expect("a writable directory");
    let metadata = fs::metadata(&path).expect("it was made");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(&directory), ["identity"], "something was left behind");

    let text = fs::read_to_string(&path).expect("it was made");
    assert!(text.len() == 65 && text.ends_with('\n'), "{} bytes", text.len());
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut seed).expect("hex digits");
    assert_eq!(Identity::from_seed(seed).peer_id(), made.peer_id());

    assert_eq!(Identity::load_or_create(&path).expect("it is there").peer_id(), made.peer_id());
    assert_eq!(Identity::load(&path).expect("it is there").peer_id(), made.peer_id());
    assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
}

#[test]
fn an_identity_given_by_its_owner_is_taken() {
    let (_directory, path) = place();
    write(&path, format!("{}\n", "07".repeat(32)), 0o400);
    let identity = Identity::load_or_create(&path).expect("a whole file");
    assert_eq!(identity.peer_id(), Identity::from_seed([7; 32]).peer_id());
}

#[test]
fn those_who_make_it_at_the_same_time_get_the_same() {
    let (directory, path) = place();
    let barrier = Barrier::new(8);
    let ids = thread::scope(|scope| {
        let make = || {
            barrier.wait();
            Identity::load_or_create(&path).map(|identity| identity.peer_id())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("made or found"))
            .collect::<Vec<_>>()
    });
    let kept = Identity::load(&path).expect("it was made").peer_id();
    assert_eq!(ids, [kept; 8]);
    assert_eq!(names(&directory), ["identity"], "something was left behind");
}

#[test]
fn a_file_that_others_can_read_or_change_is_refused() {
    let (_directory, path) = place();
    for mode in [0o640, 0o604, 0o644, 0o620, 0o602, 0o666] {
        write(&path, format!("{}\n", "07".repeat(32)), mode);
        let error = refusal(&path);
        assert!(matches!(error, IdentityError::TooOpen { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        assert!(error.to_string().contains("chmod 600"), "does not say what to do: {error}");
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let (_directory, path) = place();
    let whole = format!("{}\n", "07".repeat(32));
    for content in ["", &whole[..64], &whole[..10], &format!("{whole}\n"), &"0".repeat(1_000_000)] {
        write(&path, content, 0o600);
        let length = content.len() as u64;
        let error = refusal(&path);
        assert!(matches!(error, IdentityError::WrongLength { found, .. } if found == length), "{error}");
    }
}

#[test]
fn a_file_of_nonsense_is_refused() {
    let (_directory, path) = place();
    let digits = "07".repeat(31);
    let cases = [
        vec![0xff; 65],
        format!("{digits}zz\n").into(),
        format!("{digits}077").into(),
        format!("{digits} 7\n").into(),
    ];
    for content in cases {
        write(&path, content, 0o600);
        let error = refusal(&path);
        assert!(matches!(error, IdentityError::NotHex { .. }), "{error}");
    }
}

#[test]
fn a_missing_directory_is_an_error_that_names_the_file() {
    let (directory, _) = place();
    let path = directory.path().join("missing").join("identity");
    let error = refusal(&path);
    assert!(matches!(error, IdentityError::Create { .. }), "{error}");
    assert!(error.to_string().contains("directory must exist"), "does not say what to do: {error}");
    assert!(names(&directory).is_empty());
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let (directory, path) = place();
    fs::create_dir(&path).expect("a writable directory");
    assert!(matches!(refusal(&path), IdentityError::NotAFile { .. }));
    // Endless, and readable by all.
    let device = directory.path().join("device");
    symlink("/dev/zero", &device).expect("a writable directory");
    assert!(matches!(Identity::load(&device), Err(IdentityError::NotAFile { .. })));
}

#[test]
fn a_link_to_nothing_is_not_followed_to_make_a_file() {
    let (directory, path) = place();
    symlink(directory.path().join("elsewhere"), &path).expect("a writable directory");
    let error = Identity::load_or_create(&path).expect_err("the path is taken, and nothing is there");
    assert!(matches!(error, IdentityError::Read { .. }), "{error}");
    assert_eq!(names(&directory), ["identity"]);
}

#[test]
fn loading_what_is_not_there_makes_nothing() {
    let (directory, path) = place();
    assert!(matches!(Identity::load(&path), Err(IdentityError::Read { .. })));
    assert!(names(&directory).is_empty());
}

#[test]
fn the_seed_is_in_no_log() {
    let identity = Identity::from_seed([0xab; 32]);
    let text = format!("{identity:?}");
    assert!(!text.contains("abab") && !text.contains("171"), "{text}");
}
