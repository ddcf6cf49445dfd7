//! Weights of a model in more bits, exchanged by operators and by the configuration while answers are streamed.

use jackfield_engine::quantize::{Recipe, quantize};
use jackfield_tests::{Setup, tiny_model};
use serde_json::{Value, json};

use crate::operators::{Process, line_with};

#[test]
fn operators_exchange_the_mask_while_answers_are_streamed() {
    let (folder, model) = (tempfile::tempdir().unwrap(), tiny_model("tiny"));
    // The other way round it is the same: what counts is that the weights differ.
    let other = folder.path().join("other");
    let Setup { wiring, registry, .. } = Setup::new("cpu");
    let recipe =
        Recipe { format: "Q4_0", others: &[], tokenizer: None, calibrated: None, threads: 1 };
    quantize(model.path(), &other, &recipe, &wiring, &registry, &mut |_, _| true).unwrap();
    let config = folder.path().join("jackfield.toml");
    let write = |mask: &str| {
        let draft = folder.path().join("draft");
        let text = format!("precise_model = {other:?}\n[engine]\nnum_seqs = 8\n{mask}");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &config).unwrap();
    };
    let masks = ["", "mask = [\"*\"]\n", "mask = [\"layers.0.*\"]\n"];
    let mut expected = Vec::new();
    for mask in masks {
        write(mask);
        let Some(service) = Process::start(folder.path()) else { return };
        expected.push(service.answer());
    }
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);

    write("");
    let Some(mut service) = Process::start(folder.path()) else { return };
    let stream = service.stream();
    let exchange = |weights: Value| service.ask("POST", "/mask", &json!({ "weights": weights }));
    let done = exchange(json!(["*"]));
    assert_eq!((done.status, done.json()["reach"].as_str()), (200, Some("new-requests")));
    assert_eq!(service.answer(), expected[1]);
    assert_eq!(stream.join().unwrap(), expected[0], "the stream goes on as it began");
    let slots = service.ask("GET", "/slots", &Value::Null).body;
    assert!(slots.contains("\"mask\""), "{slots}");
    for (weights, status, words) in [
        (json!(["layers.0.*", "no.such"]), 409, "mask `no.such`: expected a pattern"),
        (json!("*"), 400, "weights"),
    ] {
        let refused = exchange(weights);
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.contains(words), "{}", refused.body);
    }
    assert_eq!(service.answer(), expected[1], "what is refused changes nothing");
    write(masks[2]);
    line_with(&mut service.log, "new requests have the mask");
    assert_eq!(service.answer(), expected[2]);
    let done = service.ask("POST", "/mask", &json!({ "weights": [] }));
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(service.answer(), expected[0]);
}
