//! Host services on the real machine: files, programs, HTTP over loopback, and what is denied.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jackfield_loader::{Grants, Services};
use plugin_api::host::{Command, Ended};
use plugin_api::{Config, Error, Host, Result, Value};

fn grants(key: &str, texts: &[&str]) -> Grants {
    let texts: Vec<Value> = texts.iter().map(|&text| Value::from(text)).collect();
    Grants::from_config(&Config::new().with(key, texts)).unwrap()
}

fn shell(host: &Host, script: &str) -> Result<Ended> {
    let args = ["-c", script].map(str::to_owned).to_vec();
    let command = Command { program: "sh".to_owned(), args, ..Command::default() };
    host.services().run(&command, &mut || ())
}

#[test]
fn files_are_written_read_renamed_and_removed_where_granted() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let services = Services::new();
    let host = services.host("test", Grants::for_builtin_source(place.path()));
    let files = host.services();

    files.append(&at("new/folder/a.part"), b"hello ").unwrap();
    files.append(&at("new/folder/a.part"), b"world").unwrap();
    files.rename(&at("new/folder/a.part"), &at("new/a")).unwrap();
    let mut text = String::new();
    files.open(&at("new/a")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello world");
    assert_eq!(files.list(&at("new")).unwrap(), ["a", "folder"]);
    assert_eq!(files.list(&at("none")).unwrap(), [""; 0]);
    assert_eq!(files.size_bytes(&at("new")).unwrap(), Some(11));
    assert_eq!(files.size_bytes(&at("none")).unwrap(), None);
    files.remove(&at("new")).unwrap();
    files.remove(&at("new")).unwrap();
    assert_eq!(files.size_bytes(&at("new")).unwrap(), None);
    assert!(matches!(files.open(&at("none")), Err(Error::Outside { .. })));
}

#[test]
fn everything_is_denied_without_a_grant_and_every_denial_is_recorded() {
    let services = Services::new();
    let host = services.host("nosy", Grants::none());
    let (nosy, path) = (host.services(), Path::new("/etc/passwd"));
    let errors = [
        nosy.open(path).err(),
        nosy.list(path).err(),
        nosy.size_bytes(path).err(),
        nosy.append(path, b"x").err(),
        nosy.rename(path, path).err(),
        nosy.remove(path).err(),
        nosy.unix_seconds().err(),
        shell(&host, "true").err(),
        nosy.http_get("http://127.0.0.1:9/x", 0, &mut |_| Ok(())).err(),
    ];
    for error in &errors {
        assert!(matches!(error, Some(Error::Denied { .. })), "{error:?}");
    }
    assert_eq!(services.num_denials(), 9);
    let denials = services.denials();
    assert_eq!(denials.len(), 9);
    assert!(denials.iter().all(|denial| denial.plugin == "nosy"));
    assert_eq!(
        errors[7].as_ref().unwrap().to_string(),
        "process: `sh` is denied to plugin `nosy`: \
         grant it with `process = [\"sh\"]` in [grants.nosy]"
    );
    assert!(host.services().monotonic_us() > 0);
}

#[test]
fn programs_run_to_their_end_with_bounded_output() {
    let services = Services::new();
    let host = services.host("test", grants("process", &["sh"]));
    let ended = shell(&host, "echo out; echo err >&2; exit 3").unwrap();
    assert_eq!((ended.status, &*ended.output, &*ended.errors), (Some(3), "out\n", "err\n"));

    let ended =
        shell(&host, "i=0; while [ $i -lt 9000 ]; do echo 0123456789; i=$((i+1)); done; echo end");
    let output = ended.unwrap().output;
    assert_eq!(output.len(), 64 * 1024, "the last 64 KiB");
    assert!(output.ends_with("0123456789\nend\n"));

    let host = services.host("test", grants("process", &["no-such-program"]));
    let command = Command { program: "no-such-program".to_owned(), ..Command::default() };
    let error = host.services().run(&command, &mut || ()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[test]
fn programs_end_with_their_host() {
    let services = Services::new();
    let host = services.host("test", grants("process", &["sleep"]));
    let (started, has_started) = mpsc::channel();
    let running = thread::spawn(move || {
        let args = vec!["600".to_owned()];
        let command = Command { program: "sleep".to_owned(), args, ..Command::default() };
        host.services().run(&command, &mut || {
            let _ = started.send(());
        })
    });
    has_started.recv().unwrap();
    drop(services);
    let begin = Instant::now();
    let error = running.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "`sleep`: ended because the host stops");
    assert!(begin.elapsed() < Duration::from_secs(300), "waited for the program");
}
