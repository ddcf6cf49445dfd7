//! `jackfield serve`, as a person types it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// `jackfield serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Every option may stand in the table [server] of the configuration as well.

Then, with any client of the OpenAI interface:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"model\": \"SmolLM2-135M-Instruct\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'

In Python:
  OpenAI(base_url=\"http://127.0.0.1:8000/v1\", api_key=\"none\")

Look at:
  /docs       every path and field          /health   503 until the model is loaded
  /metrics    numbers for Prometheus        /ready    503 from when on it is being stopped

While it runs:
  jackfield plugin swap calm.so --slot temperature    replace a plugin; no stream notices
  kill -HUP PID                                       read the configuration anew
  kill PID                                            answer what was asked, then end")]
pub(crate) struct Serve {
    /// Where to listen; beyond this machine only with keys [default: 127.0.0.1:8000]
    #[arg(long, env = "JACKFIELD_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// File of keys, one a line, of which clients bring one; JACKFIELD_API_KEY is one more
    #[arg(long, env = "JACKFIELD_API_KEY_FILE", value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Where operators are listened to; they need a key of --admin-key-file
    #[arg(long, env = "JACKFIELD_ADMIN", value_name = "ADDRESS:PORT")]
    pub(crate) admin: Option<SocketAddr>,

    /// File of keys, one a line, of which operators bring one
    #[arg(long, env = "JACKFIELD_ADMIN_KEY_FILE", value_name = "FILE")]
    pub(crate) admin_key_file: Option<PathBuf>,

    /// Another name that requests may call the model by; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) model_name: Vec<String>,

    /// Model for /v1/embeddings, such as all-MiniLM-L6-v2 [default: `embedding_model`, else none]
    #[arg(long, env = "JACKFIELD_EMBEDDING_MODEL", value_name = "NAME")]
    pub(crate) embedding_model: Option<String>,

    /// Requests that run at a time [default: `num_seqs` of the table `engine`, 16]
    #[arg(long, value_name = "N")]
    pub(crate) max_running: Option<u32>,

    /// Requests that may wait beside them; one more is refused with 429 [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) max_queued: Option<u32>,
}
