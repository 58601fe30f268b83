//! Ctrl-C and SIGTERM, for commands that work through a chain: they stop between two commits and clean up.

use anyhow::{Context, Result, bail};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Whether somebody wants the program to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over both signals for the rest of the process's life.
    pub(crate) fn install() -> Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&wanted);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot wait for signals")?;
        let signal = {
            let _guard = runtime.enter();
            Signals::new().context("cannot wait for signals")?
        };
        thread::spawn(move || {
            runtime.block_on(signal.first());
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self(wanted))
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.came() {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Resolves when somebody wants the program to end. Takes over both signals, from now on; to be called inside of a
/// tokio runtime.
pub(crate) fn signalled() -> io::Result<impl Future<Output = ()>> {
    Ok(Signals::new()?.first())
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn first(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn first(self) {
        // Where it cannot be waited for, the system ends the process as it always does.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGUSR1, as often as it comes. Takes the signal over, from now on; to be made inside of a tokio runtime.
#[cfg(unix)]
pub(crate) struct Asked(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Asked {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::user_defined1()).map(Self)
    }

    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where there is no such signal, it never comes.
#[cfg(not(unix))]
pub(crate) struct Asked;

#[cfg(not(unix))]
impl Asked {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}
