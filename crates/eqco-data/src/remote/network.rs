//! The thread on which everything is fetched.

use std::future::Future;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::failure::Failure;

/// A thread that waits for servers, until this is dropped. Whatever is in transfer then is left as far as it has come.
pub(super) struct Network {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    pub(super) fn start() -> Result<Self, Failure> {
        let failure = |error| Failure::lasting(format!("no thread for transfers: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failure)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("transfers".to_owned());
        let thread = thread.spawn(move || {
            // Ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
            // The system's resolver of names may be busy for long.
            runtime.shutdown_background();
        });
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread.map_err(failure)?),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for a task that runs on the thread.
    pub(super) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (send, receive) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Nobody listens if the caller has gone.
            let _ = send.send(task.await);
        });
        let ended = |_| Failure::lasting("the thread for transfers has ended");
        receive.recv().map_err(ended)?
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Nothing on it panics on its way out.
            let _ = thread.join();
        }
    }
}
