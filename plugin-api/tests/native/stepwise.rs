//! Schedulers, curricula, rewards, logits processors and decoding strategies over the boundary.

use plugin_api::prelude::*;
use plugin_api::testing::decoding_strategy::attach;
use plugin_api::testing::logits_processor::bytes_and_end;
use plugin_api::testing::machine::Machine;
use plugin_api::testing::rows::Rows;

use crate::rig::{both, check, import, told};

fn queue() -> Vec<Waiting> {
    let waiting = |i: u32| Waiting {
        seq: SeqId(i),
        pending: 3 + i as usize,
        is_running: i.is_multiple_of(3),
        is_atomic: i == 4,
        priority: i as i32 - 5,
    };
    (0..9).map(waiting).collect()
}

const LIMITS: Limits = Limits { tokens: 30, seqs: 6 };

#[test]
fn schedulers_behave_as_the_original() {
    let picked = both::<dyn Scheduler>().map(|mut scheduler| {
        let mut out = vec![Picked { index: 99, tokens: 99 }];
        scheduler.pick(&queue(), &LIMITS, &mut out).unwrap();
        scheduler.pick(&queue(), &Limits { tokens: 1, seqs: 1 }, &mut out).unwrap();
        let mut state = vec![99];
        let handover = scheduler.handover().unwrap();
        handover.restore(&[1, 2, 3]).unwrap();
        handover.save(&mut state).unwrap();
        assert_eq!(state, [99, 1, 2, 3]);
        out
    });
    assert_eq!(picked[0], picked[1]);
    assert!(picked[0].len() > 3);
    let (mut without, watch) = import::<dyn Scheduler>(&told("lies", "no handover"));
    assert!(without.handover().is_none() && watch.faults().is_empty());
}

#[test]
fn panics_and_errors_of_schedulers_are_contained() {
    check::<dyn Scheduler>(&[("handover", &|scheduler| {
        assert!(scheduler.handover().is_none());
        None
    })]);
    let pick = |scheduler: &mut dyn Scheduler| {
        let mut out = vec![Picked { index: 99, tokens: 99 }];
        let error = scheduler.pick(&queue(), &LIMITS, &mut out).unwrap_err();
        assert_eq!(out, [Picked { index: 99, tokens: 99 }]);
        error
    };
    let (mut scheduler, watch) = import::<dyn Scheduler>(&told("panics", "pick"));
    let first = pick(&mut *scheduler);
    watch.expect("panicked: on purpose, in pick");
    assert_eq!(first, watch.faults()[0]);
    assert!(pick(&mut *scheduler).to_string().contains("has to be replaced"));
    watch.expect("panicked: on purpose, in pick");
    assert!(scheduler.handover().is_none(), "it is not called any more");
    // Nothing is wrong with what it was asked: an error is a fault too, told once.
    let (mut scheduler, watch) = import::<dyn Scheduler>(&told("fails", "pick"));
    for _ in 0..3 {
        assert_eq!(pick(&mut *scheduler), crate::subject::denied("pick"));
        assert_eq!(watch.faults(), [crate::subject::denied("pick")]);
    }
    for (method, call) in [
        ("save", (|h| h.save(&mut Vec::new())) as fn(&mut dyn Handover) -> Result<()>),
        ("restore", |h| h.restore(&[])),
    ] {
        let (mut scheduler, watch) = import::<dyn Scheduler>(&told("panics", method));
        let error = call(scheduler.handover().unwrap()).unwrap_err();
        watch.expect(method);
        assert_eq!(error, watch.faults()[0]);
        let (mut scheduler, _) = import::<dyn Scheduler>(&told("fails", method));
        let error = call(scheduler.handover().unwrap()).unwrap_err();
        assert_eq!(error, crate::subject::denied(method));
    }
}

fn sources() -> [SourceView; 3] {
    [(4, 2, 9), (1, 0, u64::MAX), (3, 7, 11)].map(|(num_examples, given, next)| SourceView {
        num_examples,
        given,
        next,
    })
}

#[test]
fn curricula_behave_as_the_original() {
    let chosen = both::<dyn Curriculum>().map(|mut curriculum| {
        let mut state = vec![99];
        let handover = curriculum.handover().unwrap();
        handover.restore(&[1, 2, 3]).unwrap();
        handover.save(&mut state).unwrap();
        assert_eq!(state, [99, 1, 2, 3]);
        [curriculum.next(&sources()).unwrap(), curriculum.next(&sources()[..2]).unwrap()]
    });
    assert_eq!(chosen[0], chosen[1]);
    assert_eq!(chosen[0], [Choice { source: 2, again: Some(11) }, Choice::new_of(1)]);
}

#[test]
fn panics_and_errors_of_curricula_are_contained() {
    let (mut curriculum, watch) = import::<dyn Curriculum>(&told("panics", "next"));
    let first = curriculum.next(&sources()).unwrap_err();
    watch.expect("panicked: on purpose, in next");
    assert_eq!(first, watch.faults()[0]);
    let again = curriculum.next(&sources()).unwrap_err().to_string();
    assert!(again.contains("has to be replaced"), "{again}");
    assert!(curriculum.handover().is_none(), "it is not called any more");
    let (mut curriculum, watch) = import::<dyn Curriculum>(&told("fails", "next"));
    for _ in 0..3 {
        assert_eq!(curriculum.next(&sources()).unwrap_err(), crate::subject::denied("next"));
        assert_eq!(watch.faults(), [crate::subject::denied("next")]);
    }
}

fn answers() -> [RatedAnswer<'static>; 3] {
    let short =
        RatedAnswer { prompt: "p", text: "", expected: None, num_tokens: 0, is_finished: false };
    let long = RatedAnswer { text: "ä\0", expected: Some("four"), num_tokens: 7, ..short };
    [short, long, RatedAnswer { expected: Some(""), is_finished: true, ..long }]
}

#[test]
fn rewards_behave_as_the_original() {
    let rated = both::<dyn Reward>().map(|mut reward| {
        [
            reward.rate(&answers()).unwrap(),
            reward.rate(&answers()[1..]).unwrap(),
            reward.rate(&[]).unwrap(),
        ]
    });
    assert_eq!(rated[0], rated[1]);
    assert_eq!(rated[0][0], [99.875, 7_000_103.5, 7_000_104.0]);
}

#[test]
fn panics_and_errors_of_rewards_are_contained() {
    let (mut reward, watch) = import::<dyn Reward>(&told("panics", "rate"));
    let first = reward.rate(&answers()).unwrap_err();
    watch.expect("panicked: on purpose, in rate");
    assert_eq!(first, watch.faults()[0]);
    let again = reward.rate(&answers()).unwrap_err().to_string();
    assert!(again.contains("has to be replaced"), "{again}");
    let (mut reward, watch) = import::<dyn Reward>(&told("fails", "rate"));
    for _ in 0..3 {
        assert_eq!(reward.rate(&answers()).unwrap_err(), crate::subject::denied("rate"));
        assert_eq!(watch.faults(), [crate::subject::denied("rate")]);
    }
}

#[test]
fn logits_processors_behave_as_the_original() {
    let [direct, foreign] = both::<dyn LogitsProcessor>();
    let run = |mut processor: Box<dyn LogitsProcessor>| {
        let params = Config::at("request").with("bias", 4).with("misspelt", 1);
        let (row, other) = (RowId(0), RowId(1));
        let changes = [
            BatchChange::Added { row, params: &params, history: &[5, 6] },
            BatchChange::Advanced { row, token: 9 },
            BatchChange::Forked { parent: row, child: other },
            BatchChange::RolledBack { row, history: &[5, 1] },
            BatchChange::Removed { row: RowId(2) },
        ];
        changes.iter().for_each(|change| processor.batch(change).unwrap());
        let unread: Vec<String> = params.unread().map(str::to_owned).collect();
        let logits: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut rows = Rows::new(&[&logits, &logits, &logits]);
        processor.apply(&mut LogitsRows::new(&mut rows)).unwrap();
        let wrong = Config::at("request").with("bias", 40);
        let wrong = BatchChange::Added { row, params: &wrong, history: &[] };
        let error = processor.batch(&wrong).unwrap_err();
        let answers = (processor.need(), processor.is_argmax_invariant());
        (rows.logits, rows.read, unread, error, answers)
    };
    let found = run(foreign);
    assert_eq!(found, run(direct));
    assert_eq!(found.2, ["misspelt"]);
}

#[test]
fn logits_processors_are_lent_the_tokens_of_the_model() {
    let found = both::<dyn LogitsProcessor>().map(|mut processor| {
        let machine = Machine::new();
        let none = processor.open(&machine.host("test")).unwrap_err();
        machine.deny("vocabulary");
        let denied = processor.open(&machine.host("test")).unwrap_err();
        let machine = Machine::new();
        machine.speak(bytes_and_end());
        processor.open(&machine.host("test")).unwrap();
        let mut rows = Rows::new(&[&[0.5; 8]]);
        processor.apply(&mut LogitsRows::new(&mut rows)).unwrap();
        (none, denied, rows.logits)
    });
    assert_eq!(found[0], found[1]);
    let (none, denied, logits) = &found[0];
    assert!(matches!(none, Error::Unsupported { .. }) && matches!(denied, Error::Denied { .. }));
    assert!(logits[0][3] > 2610.0, "256 bytes and `<end>`, ten times, and one end: {logits:?}");
}

#[test]
fn output_parsers_behave_as_the_original() {
    let found = both::<dyn OutputParser>().map(|mut parser| {
        let params = Config::at("request").with("depth", 4).with("misspelt", 1);
        let (answer, mut out) = (AnswerId(1), vec![Piece::Content("before".to_owned())]);
        parser.open(answer, &params).unwrap();
        parser.push(answer, "naïve", &mut out).unwrap();
        parser.push(answer, "", &mut out).unwrap();
        parser.finish(answer, &mut out).unwrap();
        parser.close(answer);
        parser.finish(answer, &mut out).unwrap();
        let unread: Vec<String> = params.unread().map(str::to_owned).collect();
        let wrong = Config::at("request").with("depth", 40);
        (out, unread, parser.open(answer, &wrong).unwrap_err())
    });
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0].0.len(), 11);
    assert_eq!(found[0].1, ["misspelt"]);
}

#[test]
fn panics_and_errors_of_output_parsers_are_contained() {
    let mut out = Vec::new();
    let (mut parser, watch) = import::<dyn OutputParser>(&told("panics", "push"));
    let first = parser.push(AnswerId(0), "a", &mut out).unwrap_err();
    watch.expect("panicked: on purpose, in push");
    assert_eq!(first, watch.faults()[0]);
    let again = parser.finish(AnswerId(0), &mut out).unwrap_err().to_string();
    assert!(again.contains("has to be replaced"), "{again}");
    let (mut parser, watch) = import::<dyn OutputParser>(&told("fails", "finish"));
    for _ in 0..3 {
        let error = parser.finish(AnswerId(0), &mut out).unwrap_err();
        assert_eq!(error, crate::subject::denied("finish"));
        assert_eq!(watch.faults(), [crate::subject::denied("finish")]);
    }
    assert_eq!(out, []);
}

#[test]
fn panics_and_errors_of_logits_processors_are_contained() {
    check::<dyn LogitsProcessor>(&[
        ("need", &|p| {
            assert_eq!(p.need(), Need::Nothing);
            None
        }),
        ("is_argmax_invariant", &|p| {
            assert!(!p.is_argmax_invariant());
            None
        }),
        ("open", &|p| p.open(&Machine::new().host("test")).err()),
        ("batch", &|p| p.batch(&BatchChange::Removed { row: RowId(0) }).err()),
        ("apply", &|p| p.apply(&mut LogitsRows::new(&mut Rows::new(&[]))).err()),
    ]);
}

fn request(params: &Config) -> RequestView<'_> {
    RequestView { seq: SeqId(3), prompt: &[7, 8], params }
}

const OUTCOMES: [Outcome; 2] = [
    Outcome { seq: SeqId(3), token: Some(5), logprob: -0.5, draft: Some(6) },
    Outcome { seq: SeqId(4), token: None, logprob: 0.0, draft: None },
];

#[test]
fn decoding_strategies_behave_as_the_original() {
    let [direct, foreign] = both::<dyn DecodingStrategy>();
    let run = |mut strategy: Box<dyn DecodingStrategy>| {
        attach(&mut *strategy);
        let params = Config::new().with("max_tokens", 4).with("misspelt", 1);
        strategy.open(GroupId(2), &request(&params)).unwrap();
        let (mut evals, mut actions) = (Evals::default(), Actions::default());
        evals.push(SeqId(0), &[1], Want::Argmax);
        (actions.next_seq, actions.list) =
            (40, vec![Action::Finish { reason: FinishReason::Stop }]);
        strategy.plan(GroupId(2), &mut evals).unwrap();
        strategy.plan(GroupId(2), &mut evals).unwrap();
        strategy.observe(GroupId(2), &OUTCOMES, &mut actions).unwrap();
        strategy.close(GroupId(2));
        let wrong = Config::new().with("max_tokens", 40);
        let error = strategy.open(GroupId(2), &request(&wrong)).unwrap_err();
        let unread: Vec<String> = params.unread().map(str::to_owned).collect();
        (evals.list, evals.tokens, actions.list, actions.next_seq, error, unread)
    };
    let found = run(foreign);
    assert_eq!(found, run(direct));
    assert_eq!((found.3, &found.5[..]), (42, &["misspelt".to_owned()][..]));
}

#[test]
fn panics_and_errors_of_decoding_strategies_are_contained() {
    let group = GroupId(0);
    let machine = Machine::new();
    machine.speak(bytes_and_end());
    check::<dyn DecodingStrategy>(&[
        ("attach", &|s| s.attach(&machine.host("subject")).err()),
        ("open", &|s| s.open(group, &request(&Config::new())).err()),
        ("plan", &|s| {
            s.open(group, &request(&Config::new())).ok();
            s.plan(group, &mut Evals::default()).err()
        }),
        ("observe", &|s| s.observe(group, &OUTCOMES, &mut Actions::default()).err()),
        ("close", &|s| {
            s.close(group);
            None
        }),
    ]);
}

#[test]
fn what_a_strategy_may_not_ask_for_is_an_error_and_leaves_nothing() {
    let (mut strategy, watch) = import::<dyn DecodingStrategy>(&told("lies", "plan"));
    strategy.open(GroupId(0), &request(&Config::new())).unwrap();
    let mut evals = Evals::default();
    evals.push(SeqId(0), &[1], Want::Argmax);
    assert!(strategy.plan(GroupId(0), &mut evals).is_err(), "tokens that it has not");
    assert_eq!((evals.list.len(), evals.tokens.len()), (1, 1));
    assert!(watch.faults().is_empty(), "its own shim refuses that");

    let (mut strategy, watch) = import::<dyn DecodingStrategy>(&told("lies", "observe"));
    let mut actions = Actions { next_seq: 9, ..Actions::default() };
    assert!(strategy.observe(GroupId(0), &OUTCOMES, &mut actions).is_err());
    watch.expect("action: malformed");
    assert_eq!((actions.list, actions.next_seq), (Vec::new(), 9), "a child that exists already");
}
