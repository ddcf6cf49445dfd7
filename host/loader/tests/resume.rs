//! A download over loopback that is cut once: the real HTTP service and the real plugin go on.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use jackfield_loader::{Grants, Services, load_builtins};
use plugin_api::{Config, Error, ModelSource, Result, Value};
use plugin_hf_hub as _;

/// Requests as `path` and first byte.
type Requests = Arc<Mutex<Vec<(String, usize)>>>;

/// A hub with one file of [`SIZE`] bytes, behind a redirect. The first transfer is cut.
fn start_hub() -> (u16, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, port, &seen);
        }
    });
    (port, requests)
}

fn answer(mut stream: TcpStream, port: u16, requests: &Requests) {
    let (mut path, mut start) = (String::new(), 0);
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap_or_default();
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    requests.lock().unwrap().push((path.clone(), start));
    let body = body();
    let (head, content, sent) = match path.as_str() {
        "/api/models/user/repo?blobs=true" => {
            let list = format!(
                r#"{{"sha":"c0ffee","siblings":[{{"rfilename":"a.gguf","size":{SIZE}}}]}}"#
            );
            ("200 OK", list.into_bytes(), usize::MAX)
        }
        "/user/repo/resolve/c0ffee/a.gguf" => {
            let head = format!("302 Found\r\nLocation: http://localhost:{port}/blob");
            let _ =
                write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        "/blob" if start > 0 => ("206 Partial Content", body[start..].to_vec(), usize::MAX),
        "/blob" => ("200 OK", body, SIZE / 3),
        _ => ("404 Not Found", Vec::new(), usize::MAX),
    };
    let len = content.len();
    let _ = write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&content[..sent.min(len)]);
}

fn body() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 31 % 251) as u8).collect()
}

fn fetch(port: u16, services: &Services, hosts: &[&str], folder: &Path) -> Result<Vec<u8>> {
    let plugins = load_builtins().unwrap();
    let hub = plugins.iter().find(|plugin| plugin.manifest.name == "hf-hub").unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let source = (hub.provided[0].make)(&Config::new().with("endpoint", endpoint.as_str()))?;
    let source: Box<Box<dyn ModelSource>> = source.downcast().unwrap();

    let (paths, hosts) = (
        vec![Value::from(folder.to_str().unwrap())],
        hosts.iter().map(|&host| Value::from(host)).collect::<Vec<_>>(),
    );
    let table =
        Config::new().with("read", paths.clone()).with("write", paths).with("network", hosts);
    let grants = Grants::from_config(&table)?.within(&hub.manifest.permissions);
    let host = services.host("hf-hub", grants);
    let entry = source.resolve("user/repo", &host)?.expect("a name of the hub");
    let path = source.fetch(&entry, folder, &mut |_| (), &host)?;
    Ok(std::fs::read(path).unwrap())
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let (place, services) = (tempfile::tempdir().unwrap(), Services::new());
    let (port, requests) = start_hub();
    let bytes = fetch(port, &services, &["127.0.0.1", "localhost"], place.path()).unwrap();
    assert!(bytes == body(), "other bytes than were served");
    let blobs: Vec<usize> =
        requests.lock().unwrap().iter().filter(|(path, _)| path == "/blob").map(|r| r.1).collect();
    assert_eq!(blobs, [0, SIZE / 3]);
}

#[test]
fn a_redirect_to_a_host_without_grant_is_denied() {
    let (place, services) = (tempfile::tempdir().unwrap(), Services::new());
    let (port, requests) = start_hub();
    let error = fetch(port, &services, &["127.0.0.1"], place.path()).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert_eq!(services.denials()[0].wanted, format!("localhost:{port}"));
    assert!(!requests.lock().unwrap().iter().any(|(path, _)| path == "/blob"));
}

const SIZE: usize = 3_000_000;
