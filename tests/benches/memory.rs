//! What memories bring back of 200 facts, in two languages, beside plain summaries of the same conversation.
//!
//! Run as `cargo bench -p jackfield-tests --bench memory`. A conversation of some hundred turns tells 100 facts in
//! English and 100 in Chinese among remarks about nothing; 60 of them change later, once or several times. Then every
//! fact is asked for, in the words in which it was told and in others. Each kind of memory may bring back as many
//! characters as the others. Everything comes from one seed, and no model is needed: what is counted is what would stand in the prompt.
//!
//! | column | what it counts |
//! |---|---|
//! | retention | facts whose value, as it was told last, is in what is brought back |
//! | drift | of the facts that changed: those of which an earlier value is in it |
//! | precision | of the passages brought back: those that tell the fact asked for as it is |
//!
//! The summaries are extractive, as what runs without a model: the running summary keeps, after each turn, the sentences
//! whose words are the most frequent (SumBasic: Nenkova and Vanderwende, "The Impact of Frequency on
//! Summarization", 2005); the window keeps the latest sentences.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::collections::BTreeMap;

use jackfield_engine::Wiring;
use jackfield_loader::{Grants, Services, StoreOptions};
use plugin_api::kinds::memory::{Memory, Message, Turn, terms};
use plugin_api::testing::random::Random;
use plugin_api::{Config, Host};

/// Characters that may be brought back: about 300 tokens of English.
const BUDGET: usize = 1200;
const FACTS: usize = 200;
const CHANGING: usize = 60;
const SEED: u64 = 20;

/// A fact, with every value that it had.
struct Fact {
    subject: String,
    is_chinese: bool,
    values: Vec<String>,
}

impl Fact {
    fn told(&self, version: usize) -> String {
        let (subject, value) = (&self.subject, &self.values[version]);
        match (self.is_chinese, version) {
            (false, 0) => format!("{subject} is {value}."),
            (false, _) => format!("{subject} is now {value}."),
            (true, 0) => format!("{subject}是{value}。"),
            (true, _) => format!("{subject}现在是{value}。"),
        }
    }

    /// In the words in which it was told, and in others.
    fn questions(&self) -> [String; 2] {
        if let Some((name, of)) = self.subject.split_once('的') {
            return [format!("{}是多少？", self.subject), format!("请告诉我{name}使用什么{of}")];
        }
        let subject = self.subject.trim_start_matches("The ");
        let (what, which) = subject.split_once(" of ").unwrap();
        [
            format!("What is the {subject}?"),
            format!("Which {what} does {which} have at the moment?"),
        ]
    }
}

fn facts(random: &mut Random) -> Vec<Fact> {
    let of = |list: &[&str], i: usize| list[i % list.len()].to_owned();
    let mut facts: Vec<Fact> = (0..FACTS)
        .map(|i| {
            let (is_chinese, i) = (i % 2 == 1, i / 2);
            let subject = match is_chinese {
                false => {
                    format!("The {} of {} {}", of(&WHAT, i), of(&WHICH, i / WHAT.len()), i % 17 + 1)
                }
                true => format!(
                    "{}{}号的{}",
                    of(&WHICH_ZH, i / WHAT_ZH.len()),
                    i % 17 + 1,
                    of(&WHAT_ZH, i)
                ),
            };
            Fact { subject, is_chinese, values: Vec::new() }
        })
        .collect();
    for (i, fact) in facts.iter_mut().enumerate() {
        let changes = if i % FACTS < CHANGING { 1 + random.below(4) } else { 0 };
        for _ in 0..=changes {
            fact.values.push((1000 + random.below(900_000)).to_string());
        }
    }
    facts
}

/// Messages in order: each tells facts among remarks, and a change comes after what it changes.
fn messages(facts: &[Fact], random: &mut Random) -> Vec<Vec<String>> {
    let mut told = Vec::new();
    for version in 0..5 {
        let mut round: Vec<usize> =
            (0..facts.len()).filter(|&i| version < facts[i].values.len()).collect();
        for i in (1..round.len()).rev() {
            round.swap(i, random.below(i + 1));
        }
        for i in round {
            let mut sentences = vec![facts[i].told(version)];
            for _ in 0..2 {
                let remarks: &[&str] = if facts[i].is_chinese { &REMARKS_ZH } else { &REMARKS };
                sentences.insert(
                    random.below(sentences.len() + 1),
                    remarks[random.below(remarks.len())].to_owned(),
                );
            }
            told.push(sentences);
        }
    }
    told
}

/// Something that is told a conversation and brings back passages.
trait Recalls {
    fn tell(&mut self, sentences: &[String]);
    fn ask(&mut self, question: &str) -> Vec<String>;
}

struct Plugin {
    memory: Box<dyn Memory>,
    host: Host,
}

impl Plugin {
    fn new(name: &str, config: &Config, services: &Services) -> Self {
        let registry = jackfield::load_registry().unwrap();
        let mut wiring = Wiring::default();
        *wiring.table_mut(name) = config.clone();
        let memory = wiring.make(&registry, name).unwrap();
        Self { memory, host: services.host(name, Grants::for_builtin()) }
    }

    fn turn(said: &str) -> Turn {
        let messages = vec![Message::new("user", said)];
        Turn { session: "bench".to_owned(), messages, tokens_max: BUDGET as u32 / 4 }
    }
}

impl Recalls for Plugin {
    fn tell(&mut self, sentences: &[String]) {
        self.memory.remember(&Self::turn(&sentences.join(" ")), "I see.", &self.host).unwrap();
    }

    fn ask(&mut self, question: &str) -> Vec<String> {
        let passages = self.memory.recall(&Self::turn(question), &self.host).unwrap();
        passages.into_iter().map(|passage| passage.text).collect()
    }
}

/// Keeps the sentences that fit, whatever will be asked.
struct Summary {
    kept: Vec<String>,
    /// How often each word was said so far; nothing for the window, which keeps the latest.
    counts: Option<BTreeMap<String, usize>>,
}

impl Recalls for Summary {
    fn tell(&mut self, sentences: &[String]) {
        for sentence in sentences {
            if let Some(counts) = &mut self.counts {
                terms(sentence).into_iter().for_each(|term| *counts.entry(term).or_default() += 1);
            }
            self.kept.retain(|other| other != sentence);
            self.kept.push(sentence.clone());
        }
        while self.kept.iter().map(|it| it.chars().count()).sum::<usize>() > BUDGET {
            let worth = |sentence: &String| match &self.counts {
                Some(counts) => {
                    let terms = terms(sentence);
                    let sum: usize = terms.iter().filter_map(|term| counts.get(term)).sum();
                    sum as f64 / terms.len().max(1) as f64
                }
                None => 0.0,
            };
            let worths = self.kept.iter().map(worth).enumerate();
            let least = worths.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
            self.kept.remove(least);
        }
    }

    fn ask(&mut self, _question: &str) -> Vec<String> {
        self.kept.clone()
    }
}

/// Whole passages in order, as many as have room.
fn fitting(passages: Vec<String>) -> Vec<String> {
    let mut room = BUDGET;
    let has_room = |passage: &String| {
        let needed = passage.chars().count();
        let fits = needed <= room;
        room -= if fits { needed } else { 0 };
        fits
    };
    passages.into_iter().filter(has_room).collect()
}

/// Whether a text tells a value: the same digits, and no more of them around.
fn tells(text: &str, value: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_digit()).any(|number| number == value)
}

#[derive(Default)]
struct Score {
    asked: usize,
    retained: usize,
    changed: usize,
    drifted: usize,
    passages: usize,
    relevant: usize,
}

impl Score {
    fn take(&mut self, fact: &Fact, passages: &[String]) {
        let is_of = |passage: &&String| {
            passage.to_lowercase().contains(fact.subject.to_lowercase().trim_start_matches("the "))
        };
        let (latest, earlier) = fact.values.split_last().unwrap();
        let has = |value: &String| passages.iter().filter(is_of).any(|it| tells(it, value));
        self.asked += 1;
        self.retained += usize::from(has(latest));
        self.changed += usize::from(!earlier.is_empty());
        self.drifted += usize::from(earlier.iter().any(has));
        self.passages += passages.len();
        self.relevant += passages.iter().filter(is_of).filter(|it| tells(it, latest)).count();
    }
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

fn main() {
    let mut random = Random::new(SEED);
    let facts = facts(&mut random);
    let messages = messages(&facts, &mut random);
    let folder = tempfile::tempdir().unwrap();
    let services = |name: &str| Services::with_store(StoreOptions::new(folder.path().join(name)));
    let (basic, hierarchical) = ("basic-memory", "hierarchical-memory");
    let large = Config::at("plugin.basic-memory").with("items", 1000);
    let none = Config::new();
    let plugin =
        |name, config: &Config, place: &str| Box::new(Plugin::new(name, config, &services(place)));
    let mut all: Vec<(&str, Box<dyn Recalls>)> = vec![
        ("window of the latest", Box::new(Summary { kept: Vec::new(), counts: None })),
        ("running summary", Box::new(Summary { kept: Vec::new(), counts: Some(BTreeMap::new()) })),
        ("basic-memory", plugin(basic, &none, "a")),
        ("basic-memory, items = 1000", plugin(basic, &large, "b")),
        ("hierarchical-memory", plugin(hierarchical, &none, "c")),
    ];
    let characters: usize = messages.iter().flatten().map(|it| it.chars().count()).sum();
    println!(
        "{FACTS} facts, {CHANGING} of which change; {} messages of {characters} characters; {BUDGET} characters are brought back",
        messages.len()
    );
    let question = ["as it was told", "in other words"];
    println!("{:28} {:16} {:>10} {:>8} {:>10}", "", "asked", "retention", "drift", "precision");
    for (name, memory) in &mut all {
        messages.iter().for_each(|sentences| memory.tell(sentences));
        for (form, asked) in question.iter().enumerate() {
            let mut score = Score::default();
            for fact in &facts {
                score.take(fact, &fitting(memory.ask(&fact.questions()[form])));
            }
            let (retention, drift, precision) = (
                share(score.retained, score.asked),
                share(score.drifted, score.changed),
                share(score.relevant, score.passages),
            );
            println!("{name:28} {asked:16} {retention:>10} {drift:>8} {precision:>10}");
        }
    }
    // What is kept is in the store: another instance brings back the same.
    let mut again = Plugin::new(hierarchical, &none, &services("c"));
    let mut same = 0;
    for fact in &facts {
        let [asked, _] = fact.questions();
        same += usize::from(again.ask(&asked) == all[4].1.ask(&asked));
    }
    println!(
        "after the store is opened again: {} of the answers are the same",
        share(same, facts.len())
    );
}

const WHAT: [&str; 10] = [
    "code",
    "budget",
    "room",
    "weight",
    "price",
    "badge",
    "deadline",
    "capacity",
    "extension",
    "altitude",
];
const WHICH: [&str; 10] = [
    "vault",
    "project",
    "team",
    "crate",
    "engine",
    "visitor",
    "milestone",
    "tank",
    "office",
    "station",
];
const WHAT_ZH: [&str; 10] =
    ["密码", "预算", "房间", "重量", "价格", "工牌", "期限", "容量", "分机", "海拔"];
const WHICH_ZH: [&str; 10] =
    ["仓库", "项目", "团队", "货箱", "引擎", "访客", "里程碑", "水箱", "办公室", "车站"];
const REMARKS: [&str; 8] = [
    "The weather was fine again this morning.",
    "We walked along the river for a while.",
    "Nobody had brought an umbrella.",
    "Lunch took longer than we thought.",
    "They said that the train would be late.",
    "I had to look for the keys twice.",
    "It is always the same with these meetings.",
    "Somebody left the window open.",
];
const REMARKS_ZH: [&str; 8] = [
    "今天早上天气又很好。",
    "我们沿着河边走了一会儿。",
    "没有人带雨伞。",
    "午饭比想象的久。",
    "他们说火车会晚点。",
    "我找了两次钥匙。",
    "这些会议总是一样的。",
    "有人忘了关窗户。",
];
