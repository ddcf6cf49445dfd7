//! `sensitive_layers.json`: which weights keep more bits, and why.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Weighed;
use super::sensitivity::Sensitivity;
use crate::error::EngineError;
use crate::model::files::read_json;

/// What a scan found, and which weights it chose.
#[derive(Debug, Clone, PartialEq)]
pub struct SensitiveLayers {
    /// What the model was: numbers of weights in all, which others have not.
    pub elements: u64,
    /// The format that was tried.
    pub format: String,
    /// Of all numbers, at most this part is chosen.
    pub share: f64,
    /// Every weight, those whose bits count most first.
    pub weights: Vec<Sensitivity>,
    /// Names of those that are chosen.
    pub chosen: Vec<String>,
}

impl SensitiveLayers {
    /// Chooses weights: those first whose divergence is largest for their size, as long as all that are chosen have at most
    /// `share` of the numbers.
    pub fn choose(
        model: &Weighed,
        format: &str,
        share: f64,
        mut weights: Vec<Sensitivity>,
    ) -> Self {
        let gain = |weight: &Sensitivity| weight.divergence / (weight.elements as f64).max(1.0);
        weights.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let room = model.elements as f64 * share;
        let (mut taken, mut chosen) = (0, Vec::new());
        for weight in &weights {
            if (taken + weight.elements) as f64 <= room {
                taken += weight.elements;
                chosen.push(weight.name.clone());
            }
        }
        let (elements, format) = (model.elements, format.to_owned());
        Self { elements, format, share, weights, chosen }
    }

    /// Writes the file, whole.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if the disk refuses.
    pub fn write(&self, path: &Path) -> Result<(), EngineError> {
        let weight = |weight: &Sensitivity| {
            json!({
                "name": weight.name, "is_sensitive": self.chosen.contains(&weight.name),
                "divergence": weight.divergence, "kl": weight.kl, "dispersion": weight.dispersion,
                "energy": weight.energy, "skewness": weight.skewness,
                "elements": weight.elements, "size_bytes": weight.size_bytes,
            })
        };
        let weights: Vec<Value> = self.weights.iter().map(weight).collect();
        let file = json!({
            "version": VERSION, "elements": self.elements, "format": self.format, "share": self.share,
            "weights": weights,
        });
        let mut draft = path.file_name().unwrap_or_default().to_owned();
        draft.push(".new");
        let draft = path.with_file_name(draft);
        let text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
        written.map_err(|error| {
            EngineError::inconsistent(path.display().to_string(), "a file to write", error)
        })
    }

    /// Names of the weights that a file chooses, for a model of so many numbers.
    ///
    /// # Errors
    ///
    /// [`EngineError`] for a file that is none, and for one of another model.
    pub fn read(path: &Path, model: &Weighed) -> Result<Vec<String>, EngineError> {
        let file = read_json(path, BYTES_MAX, "the weights that a scan chose")?;
        let wrong = |key: &str, expected: String, found: &Value| {
            let what = format!("{}: `{key}`", path.display());
            Err(EngineError::inconsistent(what, expected, found))
        };
        if file["version"] != VERSION {
            return wrong("version", VERSION.to_string(), &file["version"]);
        }
        if file["elements"] != model.elements {
            let expected = format!("{}, as the model has numbers", model.elements);
            return wrong("elements", expected, &file["elements"]);
        }
        let mut chosen = Vec::new();
        for weight in file["weights"].as_array().into_iter().flatten() {
            let (name, is_chosen) = (weight["name"].as_str(), weight["is_sensitive"].as_bool());
            match name.zip(is_chosen) {
                Some((name, true)) => chosen.push(name.to_owned()),
                Some(_) => {}
                None => {
                    return wrong("weights", "a name, and whether it is sensitive".into(), weight);
                }
            }
        }
        Ok(chosen)
    }
}

const VERSION: u64 = 1;
const BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn weight(name: &str, elements: u64, divergence: f64) -> Sensitivity {
        let (kl, name) = (Some(0.25), name.to_owned());
        let (dispersion, energy, skewness, size_bytes) = (8.0, 0.1, 0.0, elements / 2);
        Sensitivity { name, elements, size_bytes, divergence, kl, dispersion, energy, skewness }
    }

    fn model(elements: u64) -> Weighed {
        Weighed { weight_bytes: 0, elements, size_bytes: 0, formats: BTreeMap::new() }
    }

    #[test]
    fn what_counts_most_for_its_size_is_chosen_and_read_back() {
        let weights = vec![
            weight("a", 50, 0.5),
            weight("b", 10, 0.2),
            weight("c", 5, 0.01),
            weight("d", 35, 0.1),
        ];
        let found = SensitiveLayers::choose(&model(100), "Q4_0", 0.2, weights);
        assert_eq!(found.chosen, ["b", "c"], "the largest has no room");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sensitive_layers.json");
        found.write(&path).unwrap();
        assert_eq!(SensitiveLayers::read(&path, &model(100)).unwrap(), ["b", "c"]);
        let error = SensitiveLayers::read(&path, &model(101)).unwrap_err().to_string();
        assert!(error.contains("`elements`: expected 101"), "{error}");
        for (text, expected) in [
            ("{}", "`version`: expected 1, found null"),
            ("{", "expected the weights that a scan chose"),
            (
                r#"{"version": 1, "elements": 100, "weights": [{"name": 7}]}"#,
                "`weights`: expected a name",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = SensitiveLayers::read(&path, &model(100)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
