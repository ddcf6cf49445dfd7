//! A conversation with the command line, on pipes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Where the test that asks was built into: `<target>/debug`.
pub fn built() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// The command line, if it was built; else the reason on standard error.
pub fn program() -> Option<PathBuf> {
    let program = built().join("jackfield");
    if program.is_file() {
        return Some(program);
    }
    eprintln!("SKIP: {} has not been built: `cargo build`", program.display());
    None
}

/// A conversation, ended by hand if the test fails.
pub struct Chat {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Chat {
    /// Starts one in `folder`, which is also where orders are taken.
    pub fn start(program: &Path, model: &Path, folder: &Path, log: Stdio) -> Self {
        let mut child = Command::new(program)
            .args(["chat", "--greedy", "--max-tokens", "8", "--model"])
            .arg(model)
            .env("XDG_RUNTIME_DIR", folder)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    /// The answer to a question that is the first of its conversation.
    pub fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "/reset\n{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // Without its input a conversation ends by itself; a test that failed does not wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
