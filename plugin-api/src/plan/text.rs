//! A plan as text: one line per op, for people and golden files.

use std::fmt;

use super::ops::{Attr, Attrs};
use super::{NodeKind, Per, Plan, Val};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names(self);
        for port in &self.inputs {
            writeln!(f, "input   {} : {}", port.name, self.spec(port.val))?;
        }
        for port in &self.weights {
            writeln!(f, "weight  {} : {}", port.name, self.spec(port.val))?;
        }
        for port in &self.states {
            write!(f, "state   {} : per ", port.spec.name)?;
            match port.spec.per {
                Per::Token { window: 0 } => write!(f, "token")?,
                Per::Token { window } => write!(f, "token, window {window}")?,
                Per::Sequence => write!(f, "sequence")?,
            }
            for part in &port.spec.parts {
                write!(f, ", {} {:?}", part.name, part.dims)?;
            }
            writeln!(f)?;
        }
        for node in &self.nodes {
            let results: Vec<String> = node.outputs.iter().map(|&val| names.of(val)).collect();
            let inputs: Vec<String> = node.inputs.iter().map(|&val| names.of(val)).collect();
            write!(f, "{} = ", results.join(", "))?;
            match &node.kind {
                NodeKind::Prim(op, attrs) | NodeKind::Fused { op, attrs, .. } => {
                    write!(f, "{op}({}){attrs}", inputs.join(", "))?;
                }
                NodeKind::Call { callback } => {
                    write!(f, "call `{callback}`({})", inputs.join(", "))?;
                }
            }
            let specs: Vec<String> =
                node.outputs.iter().map(|&val| self.spec(val).to_string()).collect();
            writeln!(f, " : {}", specs.join(", "))?;
        }
        for port in &self.outputs {
            writeln!(f, "output  {} = {}", port.name, names.of(port.val))?;
        }
        Ok(())
    }
}

struct Names<'a>(&'a Plan);

impl Names<'_> {
    fn of(&self, val: Val) -> String {
        let ports = self.0.inputs.iter().chain(&self.0.weights);
        if let Some(port) = ports.into_iter().find(|port| port.val == val) {
            return port.name.clone();
        }
        if let Some(port) = self.0.states.iter().find(|port| port.val == val) {
            return format!("state {}", port.spec.name);
        }
        format!("%{}", val.0)
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " {{")?;
        for (i, (name, attr)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name} = {attr}")?;
        }
        write!(f, "}}")
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(x) => write!(f, "{x}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(x) => write!(f, "{x}"),
            Self::Ints(x) => write!(f, "{x:?}"),
            Self::Floats(x) if x.len() <= 4 => write!(f, "{x:?}"),
            Self::Floats(x) => {
                write!(f, "[{}, {}, … {} numbers]", x[0], x[1], x.len())
            }
        }
    }
}
