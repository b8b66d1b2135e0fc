//! Writes answers in groups while the file is still being read: a few groups are on their way to the disk at once, so
//! that reading, sealing and syncing overlap and memory stays bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::engine::context::Context;
use crate::engine::run::StepError;
use crate::engine::settle;
use crate::store::{BatchRecord, Finish, StoreError};

/// A group is written when it has so many answers or bytes.
/// Large groups touch each page of the store fewer times.
const GROUP_ANSWERS: usize = 1_000;
const GROUP_BYTES: usize = 4 << 20;
/// Groups on their way to the disk.
const GROUPS_IN_FLIGHT: usize = 2;

type Writing = JoinHandle<Option<Result<usize, StepError>>>;

pub(crate) struct Recorder {
    context: Arc<Context>,
    batch: Arc<BatchRecord>,
    group: Vec<Finish>,
    group_bytes: usize,
    writing: VecDeque<Writing>,
    recorded: usize,
}

impl Recorder {
    pub(crate) const fn new(context: Arc<Context>, batch: Arc<BatchRecord>) -> Self {
        Self { context, batch, group: Vec::new(), group_bytes: 0, writing: VecDeque::new(), recorded: 0 }
    }

    /// Takes an answer. Call [`Self::pace`] after it.
    pub(crate) fn push(&mut self, finish: Finish) {
        self.group_bytes += finish.body.as_ref().map_or(0, bytes::Bytes::len);
        self.group.push(finish);
    }

    /// Starts writing a group that is full, and waits while too many are being written.
    pub(crate) async fn pace(&mut self) -> Result<(), StepError> {
        if self.group.len() >= GROUP_ANSWERS || self.group_bytes >= GROUP_BYTES {
            self.write();
        }
        while self.writing.len() > GROUPS_IN_FLIGHT {
            self.wait_for_oldest().await?;
        }
        Ok(())
    }

    /// Writes everything and waits for it; how many requests were ended in all.
    pub(crate) async fn flush(&mut self) -> Result<usize, StepError> {
        self.write();
        while !self.writing.is_empty() {
            self.wait_for_oldest().await?;
        }
        Ok(self.recorded)
    }

    fn write(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let mut group = std::mem::take(&mut self.group);
        // In order of their rows: neighbours share pages.
        group.sort_unstable_by_key(|finish| finish.id);
        self.group_bytes = 0;
        let (context, batch) = (Arc::clone(&self.context), Arc::clone(&self.batch));
        let writing = async move { settle::finish(&context, batch.created_at, Some(batch.id), group).await };
        self.writing.push_back(self.context.tasks.spawn("record answers", writing));
    }

    async fn wait_for_oldest(&mut self) -> Result<(), StepError> {
        if let Some(oldest) = self.writing.pop_front() {
            self.recorded += match oldest.await {
                Ok(Some(written)) => written?,
                // A panic there was logged; what it did not write is found again when the step is repeated.
                Ok(None) | Err(_) => return Err(StepError::Store(StoreError::Closed)),
            };
        }
        Ok(())
    }
}
