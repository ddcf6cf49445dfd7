//! Directives in what a user writes: what is to be sealed, and how the card of the session changes.
//!
//! ```text
//! document := (text | directive)*
//! seal     := OPEN ws? header? body close?        OPEN := 【封存·原文】 | 【封存·字段】 | 【封存·摘要】, or [[SEAL:A]], B, C
//! header   := TYPE ":" NAME (":v" DIGITS)? ":" ws?  TYPE := DEF | SYM | THM | PARAM | PROC | NARR
//! body     := up to a close, an OPEN or a control at the beginning of a line, or the end   close := 【/封存】 or [[/SEAL]]
//! control  := 【锚点】 text | 【禁偏】 text | 【目标】 text | 【解封】 key | 【回溯】 key, one line each
//! ```
//!
//! Nothing within a code fence is a directive; `\【` in a body is `【`.

/// How something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Byte by byte.
    Verbatim,
    /// As fields with values.
    Structured,
    /// As a summary.
    Narrative,
}

impl Tier {
    /// The letter that it has in rows.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Verbatim => "A",
            Self::Structured => "B",
            Self::Narrative => "C",
        }
    }

    pub(crate) fn of(letter: &str) -> Option<Self> {
        let all = [Self::Verbatim, Self::Structured, Self::Narrative];
        all.into_iter().find(|tier| tier.letter() == letter)
    }

    /// How much it matters beside others.
    pub(crate) fn importance(self) -> f64 {
        match self {
            Self::Verbatim => 1.0,
            Self::Structured => 0.8,
            Self::Narrative => 0.5,
        }
    }
}

/// What a line changes or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Anchor,
    NoDrift,
    Goal,
    Unseal,
    TraceBack,
}

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Something is to be kept.
    Seal {
        tier: Tier,
        /// Type and name, if it has a header: `DEF:alpha`.
        key: Option<String>,
        /// The version that it says it is.
        version: Option<u64>,
        body: String,
        /// Where it begins, in bytes.
        at: usize,
    },
    /// A line for the card.
    Control { control: Control, text: String },
}

/// The directives of a text in order, and the text around them.
pub(crate) fn scan(text: &str) -> (Vec<Directive>, String) {
    let mut scan = Scan::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        scan.line(line, at);
        at += line.len();
    }
    scan.close();
    (scan.found, scan.plain)
}

#[derive(Default)]
struct Scan {
    found: Vec<Directive>,
    plain: String,
    is_fenced: bool,
    /// The seal that is open: its tier, where it began, and its body so far.
    open: Option<(Tier, usize, String)>,
}

impl Scan {
    fn line(&mut self, line: &str, at: usize) {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence || self.is_fenced {
            self.is_fenced ^= is_fence;
            return self.text(line);
        }
        let control =
            CONTROLS.iter().find_map(|(mark, control)| Some((*control, line.strip_prefix(mark)?)));
        if let Some((control, text)) = control {
            self.close();
            let text = text.trim().to_owned();
            return self.found.push(Directive::Control { control, text });
        }
        let mut rest = line;
        if self.open.is_some() && opening(rest).is_some() {
            self.close();
        }
        while !rest.is_empty() {
            rest = match self.open {
                Some(_) => self.within(rest),
                None => self.around(rest, at + line.len() - rest.len()),
            };
        }
    }

    /// Reads up to what opens a seal, and that.
    fn around<'a>(&mut self, rest: &'a str, at: usize) -> &'a str {
        let next = OPENS
            .iter()
            .filter_map(|(mark, tier)| Some((rest.find(mark)?, *mark, *tier)))
            .min_by_key(|it| it.0);
        let Some((place, mark, tier)) = next else {
            self.text(rest);
            return "";
        };
        self.text(&rest[..place]);
        self.open = Some((tier, at + place, String::new()));
        &rest[place + mark.len()..]
    }

    /// Reads up to what closes the seal, and that.
    fn within<'a>(&mut self, rest: &'a str) -> &'a str {
        let marks = CLOSES.iter().chain([&ESCAPED]);
        let Some((place, mark)) = marks.filter_map(|mark| Some((rest.find(mark)?, *mark))).min()
        else {
            self.text(rest);
            return "";
        };
        self.text(&rest[..place]);
        if mark == ESCAPED {
            self.text("【");
        } else {
            self.close();
        }
        &rest[place + mark.len()..]
    }

    fn text(&mut self, text: &str) {
        match &mut self.open {
            Some((.., body)) => body.push_str(text),
            None => self.plain.push_str(text),
        }
    }

    fn close(&mut self) {
        let Some((tier, at, body)) = self.open.take() else { return };
        let (key, version, rest) = match header(&body) {
            Some((key, version, rest)) => (Some(key), version, rest),
            None => (None, None, body.strip_prefix(' ').unwrap_or(&body)),
        };
        let body = rest.strip_suffix('\n').map_or(rest, |it| it.strip_suffix('\r').unwrap_or(it));
        let body = body.to_owned();
        self.found.push(Directive::Seal { tier, key, version, body, at });
    }
}

fn opening(text: &str) -> Option<Tier> {
    OPENS.iter().find(|(mark, _)| text.starts_with(mark)).map(|(_, tier)| *tier)
}

/// Key, version and what follows, if a body begins with a header.
fn header(body: &str) -> Option<(String, Option<u64>, &str)> {
    let (kind, rest) = body.trim_start().split_once(':')?;
    let (name, rest) = rest.split_once(':')?;
    let is_name = |c: char| !c.is_whitespace() && !"【】".contains(c);
    let is_fair = TYPES.contains(&kind) && (1..=NAME_MAX).contains(&name.chars().count());
    if !is_fair || !name.chars().all(is_name) {
        return None;
    }
    let numbered = rest.strip_prefix('v').and_then(|rest| rest.split_once(':'));
    let numbered = numbered.filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let numbered = numbered.and_then(|(digits, rest)| Some((digits.parse().ok()?, rest)));
    let (version, rest) = numbered.map_or((None, rest), |(version, rest)| (Some(version), rest));
    let rest = rest.strip_prefix(char::is_whitespace).unwrap_or(rest);
    Some((format!("{kind}:{name}"), version, rest))
}

/// Characters of the longest name.
pub(crate) const NAME_MAX: usize = 64;

const TYPES: [&str; 6] = ["DEF", "SYM", "THM", "PARAM", "PROC", "NARR"];
const OPENS: [(&str, Tier); 6] = [
    ("【封存·原文】", Tier::Verbatim),
    ("【封存·字段】", Tier::Structured),
    ("【封存·摘要】", Tier::Narrative),
    ("[[SEAL:A]]", Tier::Verbatim),
    ("[[SEAL:B]]", Tier::Structured),
    ("[[SEAL:C]]", Tier::Narrative),
];
const CLOSES: [&str; 2] = ["【/封存】", "[[/SEAL]]"];
const ESCAPED: &str = "\\【";
const CONTROLS: [(&str, Control); 5] = [
    ("【锚点】", Control::Anchor),
    ("【禁偏】", Control::NoDrift),
    ("【目标】", Control::Goal),
    ("【解封】", Control::Unseal),
    ("【回溯】", Control::TraceBack),
];
