//! One file = one command.

pub(crate) mod adapter;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod generate;
pub(crate) mod model;
pub(crate) mod plugin;
pub(crate) mod quantize;
pub(crate) mod run_page;
pub(crate) mod serve;
pub(crate) mod train;
