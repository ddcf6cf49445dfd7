//! Files of examples: each once an epoch, packed, resumed with the same batches, refused where they are wrong.

use std::path::{Path, PathBuf};

use jackfield_engine::model::{ChatTemplate, Tokenizer};
use jackfield_engine::train::{
    DatasetLoader, DatasetOptions, DatasetPosition, ExampleEncoder, Passed, TokenBatch, TooLong,
};
use jackfield_tests::tiny_model;
use tempfile::TempDir;

use crate::{setup, trainer};

const LENGTH: usize = 16;
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}<assistant>{% endif %}";

fn encoder(too_long: TooLong) -> ExampleEncoder {
    let tokenizer = Tokenizer::from_folder(tiny_model("tiny").path()).unwrap();
    let template = ChatTemplate::new(Path::new("template"), TEMPLATE).unwrap();
    ExampleEncoder::new(tokenizer, Some(template), LENGTH, too_long)
}

fn options(shuffle: usize) -> DatasetOptions {
    DatasetOptions {
        tokens_max: 4 * LENGTH,
        num_seqs_max: 12,
        shuffle,
        seed: 7,
        line_bytes_max: 4096,
    }
}

fn file(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn open(path: &Path, shuffle: usize) -> DatasetLoader {
    DatasetLoader::open(&[path.to_owned()], encoder(TooLong::Cut), options(shuffle)).unwrap()
}

/// Prompts of one to five words with a completion that names the line.
fn lines(count: usize) -> String {
    let line = |n: usize| {
        let prompt = "to ".repeat(1 + n * n % 5);
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{n}\"}}\n")
    };
    (0..count).map(line).collect()
}

/// The targets that count of each sequence.
fn learnt(batch: &TokenBatch) -> Vec<Vec<u32>> {
    let mut learnt = vec![Vec::new(); batch.num_seqs()];
    for (row, sequence) in batch.sequence_index.iter().enumerate() {
        if batch.weights[row] > 0.0 {
            learnt[*sequence as usize].push(batch.targets[row]);
        }
    }
    learnt
}

#[test]
fn every_example_is_given_once_an_epoch_whatever_the_window() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "a.jsonl", lines(40));
    let mut orders = Vec::new();
    for shuffle in [1, 7, 39, 40, 1000] {
        let mut loader = open(&path, shuffle);
        let mut given = Vec::new();
        while given.len() < 120 {
            let batch = loader.batch().unwrap();
            let (tokens, seqs) = (batch.num_tokens(), batch.num_seqs());
            assert!(tokens <= 4 * LENGTH && seqs <= 12, "{tokens} tokens in {seqs} sequences");
            // Packed: what did not fit is at most a whole sequence.
            assert!(tokens > 3 * LENGTH || seqs == 12, "{tokens} tokens in {seqs} sequences");
            given.extend(learnt(&batch));
        }
        let mut epochs: Vec<Vec<_>> = given[..120].chunks(40).map(<[_]>::to_vec).collect();
        assert_eq!(epochs[0] == epochs[1], shuffle == 1, "window {shuffle}: an order of its own");
        orders.push(epochs[0].clone());
        epochs.iter_mut().for_each(|epoch| epoch.sort());
        assert!(epochs[0] == epochs[1] && epochs[1] == epochs[2], "window {shuffle}");
        epochs[0].dedup();
        assert_eq!(epochs[0].len(), 40, "window {shuffle}: each line once");
        assert!(loader.epoch() >= 3);
        assert_eq!(loader.passed(), Passed::default());
    }
    // A window of 7 moves no line further to the front than it reaches.
    for (at, example) in orders[1].iter().enumerate() {
        let line = orders[0].iter().position(|other| other == example).unwrap();
        assert!(line <= at + 6, "line {line} at {at}");
    }
}

#[test]
fn a_loader_goes_on_with_the_same_batches_from_wherever_another_stood() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "a.jsonl", lines(23));
    for shuffle in [1, 5, 64] {
        let mut first = open(&path, shuffle);
        for step in 0..12 {
            let json = serde_json::to_string(&first.position().unwrap()).unwrap();
            let position: DatasetPosition = serde_json::from_str(&json).unwrap();
            assert_eq!(position, first.position().unwrap());
            let (mut second, mut third) = (open(&path, shuffle), open(&path, shuffle));
            for loader in [&mut second, &mut third] {
                loader.seek(position.clone()).unwrap();
            }
            for _ in 0..3 {
                assert_eq!(second.batch().unwrap(), third.batch().unwrap(), "step {step}");
            }
            let next = first.batch().unwrap();
            third.seek(position).unwrap();
            assert_eq!(next, third.batch().unwrap(), "window {shuffle}, step {step}");
        }
    }
    let mut other = open(&file(&folder, "b.jsonl", lines(5)), 3);
    let error = other.seek(open_far(&path)).unwrap_err().to_string();
    assert!(error.contains("place in") && error.contains("expected a window of 3"), "{error}");
}

fn open_far(path: &Path) -> DatasetPosition {
    let mut loader = open(path, 9);
    loader.batch().unwrap();
    loader.position().unwrap()
}

#[test]
fn packed_sequences_know_nothing_of_each_other() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "a.jsonl", lines(12));
    let options = DatasetOptions { num_seqs_max: 4, ..options(12) };
    let mut loader = DatasetLoader::open(&[path], encoder(TooLong::Cut), options).unwrap();
    let packed = loader.batch().unwrap();
    assert_eq!(packed.num_seqs(), 4);
    // Each by itself.
    let alone: Vec<TokenBatch> = (0..packed.num_seqs() as u32)
        .map(|sequence| {
            let mut batch = packed.clone();
            let mut keep = packed.sequence_index.iter().map(|index| *index == sequence);
            for column in [&mut batch.tokens, &mut batch.targets, &mut batch.positions] {
                let mut keep = packed.sequence_index.iter().map(|index| *index == sequence);
                column.retain(|_| keep.next().unwrap());
            }
            batch.weights.retain(|_| keep.next().unwrap());
            batch.sequence_index = vec![0; batch.tokens.len()];
            batch
        })
        .collect();
    let setup = setup("cpu");
    let mut trainer = trainer(&setup);
    let (whole, _) = trainer.evaluate(std::slice::from_ref(&packed)).unwrap();
    let (parts, _) = trainer.evaluate(&alone).unwrap();
    assert!((whole - parts).abs() < 1e-5 && whole > 1.0, "{whole} {parts}");
}

#[test]
fn pairs_stay_together() {
    let folder = TempDir::new().unwrap();
    let said = |text: &str| format!("[{{\"role\": \"assistant\", \"content\": \"{text}\"}}]");
    let line = |n: usize| {
        let prompt = "[{\"role\": \"user\", \"content\": \"a\"}]";
        let (chosen, rejected) = (said(&format!("{n}")), said("no"));
        format!("{{\"prompt\": {prompt}, \"chosen\": {chosen}, \"rejected\": {rejected}}}\n")
    };
    let text: String = (0..9).map(line).collect();
    let path = file(&folder, "a.jsonl", text);
    let mut options = options(4);
    (options.tokens_max, options.num_seqs_max) = (8 * LENGTH, 5);
    let mut loader =
        DatasetLoader::open(std::slice::from_ref(&path), encoder(TooLong::Cut), options.clone())
            .unwrap();
    for _ in 0..6 {
        let batch = loader.batch().unwrap();
        assert_eq!(batch.num_seqs() % 2, 0);
        let columns = format!("{:?}", batch.columns);
        assert!(columns.contains("U32([1, 0") && columns.contains("F32([1.0, 0.0"), "{columns}");
        assert!(learnt(&batch).iter().all(|learnt| !learnt.is_empty()));
    }
    options.num_seqs_max = 1;
    let error = DatasetLoader::open(&[path], encoder(TooLong::Cut), options).unwrap_err();
    assert!(error.to_string().contains("room for 32 in 2: one example"), "{error}");
}

#[test]
fn what_is_too_long_is_counted_or_refused() {
    let folder = TempDir::new().unwrap();
    let long = "to be or not to be ".repeat(20);
    let text = format!(
        "{{\"prompt\": \"{long}\", \"completion\": \"x\"}}\n{{\"prompt\": \"a\", \"completion\": \"{long}\"}}\n\
         {{\"prompt\": \"a\", \"completion\": \"b\"}}\n"
    );
    let path = file(&folder, "a.jsonl", &text);
    let mut loader = open(&path, 1);
    let batch = loader.batch().unwrap();
    let Passed { cut, empty } = loader.passed();
    assert!(cut >= 3 && empty >= 3 && batch.num_tokens() > 3 * LENGTH, "{cut} {empty}");
    let refused = DatasetLoader::open(&[path], encoder(TooLong::Refuse), options(1));
    let error = refused.unwrap().batch().unwrap_err().to_string();
    assert!(error.contains("a.jsonl:1: expected at most 17 tokens"), "{error}");
    // Nothing to learn in any.
    let path = file(&folder, "b.jsonl", text.lines().next().unwrap());
    let error = open(&path, 1).batch().unwrap_err().to_string();
    assert!(error.contains("something to learn in the first 16 tokens"), "{error}");
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line_before_anything_is_trained() {
    let folder = TempDir::new().unwrap();
    let good = r#"{"text": "a"}"#;
    let gigantic = format!("{good}\n{{\"text\": \"{}\"}}\n", "a".repeat(5000));
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 9] = [
        (b"",                                                     ".jsonl: expected a line with an example, found an empty file"),
        (b"\n",                                                   ".jsonl:1: expected a JSON object, found an empty line"),
        (b"{\"text\": \"a\"}\n\n{\"text\": \"a\"}\n",             ".jsonl:2: expected a JSON object, found an empty line"),
        (b"{\"text\": \"a\"}\r\n{\"text\"\n",                     ".jsonl:2: expected a JSON object, found EOF"),
        (b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n",            ".jsonl:2: expected UTF-8, found the byte 0xff at 10"),
        (gigantic.as_bytes(),                                     ".jsonl:2: expected a line of at most 4096 bytes, found a longer one"),
        (b"{\"text\": \"a\"}\n{\"txt\": \"a\"}\n",                ".jsonl:2: expected the columns `messages`, or `text`"),
        (b"{\"text\": \"a\"}\n{\"text\": 3}\n",                   ".jsonl:2: expected text in `text`, found a number"),
        (b"{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}", ".jsonl:2: expected `text`, as in the lines before, found `prompt`, `completion`"),
    ];
    for (bytes, expected) in cases {
        let path = file(&folder, "bad.jsonl", bytes);
        let opened = DatasetLoader::open(&[path], encoder(TooLong::Cut), options(4));
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // Two files of different layouts; none; one that is gone while it is read.
    let a = file(&folder, "a.jsonl", good);
    let b = file(&folder, "b.jsonl", r#"{"prompt": "a", "completion": "b"}"#);
    let error = DatasetLoader::open(&[a.clone(), b], encoder(TooLong::Cut), options(4));
    assert!(error.unwrap_err().to_string().contains("expected `text`, as in"));
    assert!(DatasetLoader::open(&[], encoder(TooLong::Cut), options(4)).is_err());
    let mut loader = open(&a, 1);
    std::fs::write(&a, "").unwrap();
    let error = loader.batch().unwrap_err().to_string();
    assert!(error.contains("a.jsonl"), "{error}");
}
