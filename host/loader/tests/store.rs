//! The store service on SQLite: what is kept, what is refused, and what damage comes to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use jackfield_loader::{Grants, Services, StoreOptions};
use plugin_api::host::{Change, Row};
use plugin_api::{Config, Error, Host};

fn host(folder: &Path, plugin: &str) -> Host {
    Services::with_store(StoreOptions::new(folder)).host(plugin, Grants::for_builtin())
}

fn row(key: &str, value: &str) -> Row {
    Row { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn keys(host: &Host, session: &str, prefix: &str) -> Vec<String> {
    let rows = host.services().store_rows(session, prefix).unwrap();
    rows.into_iter().map(|row| row.key).collect()
}

#[test]
fn rows_outlive_the_host_and_belong_to_one_plugin_and_one_session() {
    let folder = tempfile::tempdir().unwrap();
    let first = host(folder.path(), "one");
    let changes =
        ["b", "a%", "a_x", "aé", "c'; DROP TABLE rows; --"].map(|key| Change::Put(row(key, "1")));
    assert!(first.services().store_change("s 東京", &changes).unwrap());
    assert!(first.services().store_change("other", &[Change::Put(row("z", "9"))]).unwrap());
    drop(first);
    let again = host(folder.path(), "one");
    assert_eq!(keys(&again, "s 東京", ""), ["a%", "a_x", "aé", "b", "c'; DROP TABLE rows; --"]);
    assert_eq!(keys(&again, "s 東京", "a_"), ["a_x"], "a prefix is no pattern");
    assert_eq!(keys(&again, "s", ""), [""; 0]);
    assert_eq!(keys(&host(folder.path(), "two"), "s 東京", ""), [""; 0]);
    assert!(again.services().store_change("s 東京", &[Change::Put(row("b", "2"))]).unwrap());
    assert_eq!(again.services().store_rows("s 東京", "b").unwrap(), [row("b", "2")]);
}

#[test]
fn changes_are_taken_in_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path(), "one");
    let services = host.services();
    let create = |key: &str| Change::Create(row(key, "x"));
    assert!(services.store_change("s", &[create("a")]).unwrap());
    let both = [Change::Put(row("b", "x")), Change::Remove("a".to_owned()), create("b")];
    assert!(!services.store_change("s", &both).unwrap(), "`b` is there by then");
    assert_eq!(keys(&host, "s", ""), ["a"]);
    assert!(services.store_change("s", &[Change::Remove("a".to_owned()), create("a")]).unwrap());
    let bad = [create("c"), Change::Put(row("", "x"))];
    assert!(matches!(services.store_change("s", &bad), Err(Error::Malformed { .. })));
    assert_eq!(keys(&host, "s", ""), ["a"]);
    for session in ["", "a\nb", &"x".repeat(129)] {
        let error = services.store_rows(session, "").unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let table = Config::at("store").with("session_kib", 1).with("plugin_mib", 1);
    let options = StoreOptions::from_config(Some(&table), folder.path()).unwrap();
    let host = Services::with_store(options).host("one", Grants::for_builtin());
    let services = host.services();
    let put = |size: usize| [Change::Put(row("k", &"x".repeat(size)))];
    assert!(services.store_change("s", &put(1000)).unwrap());
    let error = services.store_change("s", &put(1100)).unwrap_err();
    assert!(matches!(error, Error::NoSpace { needed: 77, .. }), "{error:?}");
    assert_eq!(services.store_rows("s", "").unwrap()[0].value.len(), 1000);
    let filled = (0..2000).find_map(|i| services.store_change(&format!("s{i}"), &put(1000)).err());
    assert!(matches!(filled, Some(Error::NoSpace { .. })), "a plugin has so much, too: {filled:?}");
    assert_eq!(services.store_rows("s", "").unwrap().len(), 1);
    let wrong = StoreOptions::from_config(Some(&Config::at("store").with("session_kib", 0)), "");
    assert!(matches!(wrong, Err(Error::Config { key, .. }) if key == "store.session_kib"));
}

#[test]
fn without_a_grant_or_a_folder_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let services = Services::with_store(StoreOptions::new(folder.path()));
    let denied = services.host("one", Grants::none()).services().store_rows("s", "").unwrap_err();
    assert!(denied.to_string().contains("`store = true` in [grants.one]"), "{denied}");
    assert_eq!((services.num_denials(), std::fs::read_dir(folder.path()).unwrap().count()), (1, 0));
    let none = Services::new().host("one", Grants::for_builtin());
    assert!(matches!(none.services().store_rows("s", ""), Err(Error::Unsupported { .. })));
    let granted = Grants::from_config(&Config::new().with("store", true)).unwrap();
    assert_eq!(services.host("one", granted).services().store_rows("s", ""), Ok(Vec::new()));
}

#[test]
fn a_database_that_was_cut_is_an_error_that_says_so_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.sqlite3");
    {
        let host = host(folder.path(), "one");
        for i in 0..40 {
            let changes = [Change::Put(row(&format!("k{i}"), &"x".repeat(2000)))];
            assert!(host.services().store_change("s", &changes).unwrap());
        }
    }
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 80_000, "{} bytes", whole.len());
    #[rustfmt::skip]
    let cuts: [(&str, Vec<u8>); 5] = [
        ("to nothing",        Vec::new()),
        ("within the header", whole[..50].to_vec()),
        ("after a page",      whole[..4096].to_vec()),
        ("within a page",     whole[..whole.len() / 2 + 100].to_vec()),
        ("another file",      b"not a database at all, but long enough to be one".repeat(40)),
    ];
    for (how, bytes) in cuts {
        std::fs::write(&path, &bytes).unwrap();
        let host = host(folder.path(), "one");
        let error = host.services().store_rows("s", "").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Malformed { .. }), "{how}: {text}");
        assert!(
            text.starts_with("store of plugin `one`: malformed: expected a whole database"),
            "{text}"
        );
        assert!(!text.contains(&*folder.path().to_string_lossy()), "clients may read it: {text}");
        let change = host.services().store_change("s", &[Change::Put(row("k", "x"))]);
        assert!(matches!(change, Err(Error::Malformed { .. })), "{how}: {change:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{how}: what is left may be of use");
    }
    std::fs::write(&path, &whole).unwrap();
    let host = host(folder.path(), "one");
    assert_eq!(keys(&host, "s", "").len(), 40, "a copy in its place is read again");
}

#[test]
fn another_version_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(host(folder.path(), "one").services().store_rows("s", ""));
    let path = folder.path().join("one.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    // `user_version`, as the file format has it.
    bytes[60..64].copy_from_slice(&7_u32.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = host(folder.path(), "one").services().store_rows("s", "").unwrap_err();
    assert!(error.to_string().ends_with("found version 7"), "{error}");
}

#[test]
fn two_hosts_share_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &'static str| {
        let host = host(folder.path(), "one");
        move || {
            for i in 0..30 {
                let key = format!("{name} {i}");
                assert!(
                    host.services().store_change("s", &[Change::Create(row(&key, "x"))]).unwrap()
                );
            }
        }
    };
    let threads = ["a", "b"].map(|name| std::thread::spawn(write(name)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(keys(&host(folder.path(), "one"), "s", "").len(), 60);
}
