//! The probe: connects as a web server does, asks, and says in one word how the server is.
//!
//! [`Probe`] holds what to ask and what to expect. [`Probe::run`] probes one address, [`Probe::run_many`] thousands at
//! once, [`Prober`] as many as a host's own loop likes. The answer is a [`ProbeReport`]: a [`Verdict`] for people, an
//! [`Outcome`] for machines. `check` decides, `driver` does the system calls, `sight` looks at the server from outside.
//!
//! ```no_run
//! use fcgi_core::address::Address;
//! use fcgi_core::probe::Probe;
//!
//! let report = Probe::new().run(&Address::parse("unix:/run/php-fpm.sock")?)?;
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod check;
mod driver;
mod plan;
mod report;
mod sight;
mod verdict;

pub use driver::{Finished, Prepared, Prober};
pub use plan::{Expect, Method, OptionFault, Probe, DEFAULT_MAX_OPEN, DEFAULT_TIMEOUT_MS};
pub use report::{Phase, Phases, ProbeReport};
pub use verdict::{judge, Evidence, Holders, Outcome, Verdict};

use crate::address::{Address, ResolveError};
use crate::error::{Code, Coded};
use crate::record::ProtocolError;
use crate::sys::SysError;

/// Why a probe could not be made. What it found is never an error but a [`ProbeReport`].
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The address is a name that does not resolve, or a descriptor.
    #[error(transparent)]
    Resolve(ResolveError),
    /// A param does not fit the wire.
    #[error("params: {0}")]
    Params(ProtocolError),
    /// The system has no socket for us.
    #[error(transparent)]
    System(#[from] SysError),
}

impl Coded for ProbeError {
    fn code(&self) -> Code {
        match self {
            ProbeError::Resolve(error) => error.code(),
            ProbeError::Params(error) => error.code(),
            ProbeError::System(error) => error.code(),
        }
    }
}

impl Probe {
    /// Probes one address and waits for the report, at most the timeout (and the resolver).
    pub fn run(&self, address: &Address) -> Result<ProbeReport, ProbeError> {
        let mut only = None;
        self.run_many(std::slice::from_ref(address), |_, result| only = Some(result))?;
        // Every target that was added is reported.
        only.unwrap_or_else(|| Err(SysError::last("epoll_pwait").into()))
    }

    /// Probes all addresses at once and hands out each report as it is ready, with the address's index.
    pub fn run_many(
        &self,
        addresses: &[Address],
        mut each: impl FnMut(usize, Result<ProbeReport, ProbeError>),
    ) -> Result<(), ProbeError> {
        let mut prober = Prober::new(self)?;
        for address in addresses {
            prober.add(address);
        }
        while !prober.is_idle() {
            for Finished { id, result } in prober.step(-1)? {
                each(id, result);
            }
        }
        Ok(())
    }
}
