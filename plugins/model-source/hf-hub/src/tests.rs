//! A hub that is a script of answers.

use plugin_api::testing::machine::{Answer, Machine};
use plugin_api::testing::model_source::{fetch, suite};

use super::*;

const API: &str = "http://hub/api/models/user/repo?blobs=true";
const FILE: &str = "http://hub/user/repo/resolve/c0ffee0123/tiny-Q4_0.gguf";

// printf 'hello world' | sha256sum
const HASH: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

fn config() -> Config {
    Config::new().with("endpoint", "http://hub/")
}

/// A repository with these files of 11 bytes each.
fn listing(names: &[&str]) -> Answer {
    let sibling = |name: &&str| {
        format!(r#"{{"rfilename":"{name}","size":11,"lfs":{{"sha256":"{HASH}","size":11}}}}"#)
    };
    let siblings: Vec<String> = names.iter().map(sibling).collect();
    let body = format!(r#"{{"sha":"c0ffee0123","siblings":[{}]}}"#, siblings.join(","));
    Answer { body: body.into_bytes(), ..Answer::default() }
}

fn hub(answer: Answer) -> Machine {
    let machine = Machine::new();
    machine.answer(API, listing(&["README.md", "tiny-Q4_0.gguf"]));
    machine.answer(FILE, answer);
    machine
}

fn hello() -> Answer {
    Answer { body: b"hello world".to_vec(), ..Answer::default() }
}

#[test]
fn passes_the_contract_suite() {
    suite::<HfHub>(&config());
}

#[test]
fn fetches_verifies_and_then_works_without_the_hub() {
    let machine = hub(hello());
    let (path, stages) = fetch::<HfHub>(&config(), "user/repo", &machine).unwrap();
    assert_eq!(path, Path::new("models/user/repo/tiny-Q4_0.gguf"));
    assert_eq!(machine.file(&path).unwrap(), b"hello world");
    assert!(stages.contains("downloading tiny-Q4_0.gguf") && stages.contains("verifying"));
    assert_eq!(machine.files().len(), 2, "the model and its mark: {machine:?}");

    machine.deny("network");
    for name in ["user/repo", "user/repo:q4_0", "user/repo:tiny-Q4_0.gguf"] {
        assert_eq!(fetch::<HfHub>(&config(), name, &machine).unwrap().0, path, "{name}");
    }
}

#[test]
fn goes_on_where_a_connection_broke() {
    let offsets = |machine: &Machine| -> Vec<u64> {
        machine.requests().iter().filter(|(url, _)| url == FILE).map(|(_, at)| *at).collect()
    };
    #[rustfmt::skip]
    let cases: [(&str, Answer, Option<&str>, &[u64]); 5] = [
        ("resumes",              Answer { breaks_after: vec![4, 2], ..hello() },             None,                 &[0, 4, 6]),
        ("ranges are ignored",   Answer { breaks_after: vec![4], ignores_offset: true, ..hello() }, None,          &[0, 4]),
        ("an old part",          hello(),                                                     Some("hello "),       &[6]),
        ("a part that is whole", hello(),                                                     Some("hello world"),  &[]),
        ("a part too long",      hello(),                                                     Some("hello world!"), &[12, 0]),
    ];
    for (name, answer, part, expected) in cases {
        let machine = hub(answer);
        if let Some(part) = part {
            machine.put("models/user/repo/tiny-Q4_0.gguf.c0ffee01.part", part);
        }
        let (path, _) = fetch::<HfHub>(&config(), "user/repo", &machine).expect(name);
        assert_eq!(machine.file(path).unwrap(), b"hello world", "{name}");
        assert_eq!(offsets(&machine), expected, "{name}");
    }
}

#[test]
fn gives_up_with_a_reason_and_without_a_model() {
    #[rustfmt::skip]
    let cases = [
        (Answer { breaks_after: vec![1; 9], ..hello() },          "the connection broke"),
        (Answer { status: Some(403), ..hello() },                 "status 403: needs an account"),
        (Answer { body: b"hello World".to_vec(), ..hello() },     "expected SHA-256 b94d27b9"),
        (Answer { body: b"hello".to_vec(), ..hello() },           "expected 11 bytes, found 5"),
    ];
    for (answer, expected) in cases {
        let machine = hub(answer);
        let error = fetch::<HfHub>(&config(), "user/repo", &machine).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(machine.file("models/user/repo/tiny-Q4_0.gguf"), None);
    }
}

#[test]
fn chooses_a_file_or_lists_the_candidates() {
    let both = ["a-Q4_K_M.gguf", "a-Q4_K.gguf", "config.json"];
    #[rustfmt::skip]
    let cases: [(&[&str], &str, std::result::Result<&str, &str>); 7] = [
        (&both,              "user/repo:Q4_K_M",      Ok("models/user/repo/a-Q4_K_M.gguf")),
        (&both,              "user/repo:q4_k",        Ok("models/user/repo/a-Q4_K.gguf")),
        (&both,              "user/repo:a-Q4_K.gguf", Ok("models/user/repo/a-Q4_K.gguf")),
        (&both,              "user/repo",             Err("name one as user/repo:FILE of a-Q4_K_M.gguf, a-Q4_K.gguf")),
        (&both,              "user/repo:Q8_0",        Err("file of user/repo `Q8_0`: not found, expected one of a-Q4_K_M.gguf, a-Q4_K.gguf")),
        (&["README.md"],     "user/repo",             Err("model in GGUF or safetensors `user/repo`: not found")),
        (&["config.json", "model.safetensors", "x.bin"], "user/repo", Ok("models/user/repo")),
    ];
    for (files, name, expected) in cases {
        let machine = Machine::new();
        machine.answer(API, listing(files));
        for file in files {
            machine.answer(&format!("http://hub/user/repo/resolve/c0ffee0123/{file}"), hello());
        }
        match (fetch::<HfHub>(&config(), name, &machine), expected) {
            (Ok((path, _)), Ok(expected)) => assert_eq!(path, Path::new(expected)),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn knows_its_own_names() {
    #[rustfmt::skip]
    let cases = [
        ("user/repo",               Some(("user/repo", None))),
        ("user/repo:Q4_K_M",        Some(("user/repo", Some("Q4_K_M")))),
        ("user/repo:sub/a.gguf",    Some(("user/repo", Some("sub/a.gguf")))),
        ("user/repo:../a.gguf",     None),
        ("user/repo:",              None),
        ("smollm2",                 None),
        ("/tmp/a.gguf",             None),
        ("models/a.gguf",           None),
        ("../repo",                 None),
        ("a/b/c",                   None),
    ];
    for (name, expected) in cases {
        let found = Wanted::parse(name).map(|wanted| (wanted.repo, wanted.file));
        assert_eq!(found, expected, "{name}");
    }
}
