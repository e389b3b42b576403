//! Panics stop here: each method of the native classes runs under catch_unwind, a panic arrives in Python as `fcgiguard.InternalError`,
//! and its object is poisoned: whatever it was in the middle of, nobody goes on with it.

use crate::errors::raise;
use fcgi_core::Code;
use pyo3::prelude::*;
use pyo3::PyClass;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The mark that a panic leaves on an object; a clone is the same mark.
#[derive(Clone, Default)]
pub struct Poison(Arc<AtomicBool>);

/// What a method returns, as Python gets it from under the guard.
pub trait Outcome {
    type Value;
    fn outcome(self) -> PyResult<Self::Value>;
}

impl<T> Outcome for PyResult<T> {
    type Value = T;
    fn outcome(self) -> PyResult<T> {
        self
    }
}

/// The plain types that methods return.
macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(impl Outcome for $type {
            type Value = $type;
            fn outcome(self) -> PyResult<$type> {
                Ok(self)
            }
        })*
    };
}
plain!((), bool, i32, u32, usize, Option<i32>, Option<f64>, Option<u32>, Option<u8>, Option<String>, Vec<String>);
plain!((Vec<String>, String, String));
plain!(crate::client::Client, crate::responder::Input, crate::Pool);

impl<'py, T> Outcome for Bound<'py, T> {
    type Value = Self;
    fn outcome(self) -> PyResult<Self> {
        Ok(self)
    }
}
impl<'py, T> Outcome for (Bound<'py, T>, bool) {
    type Value = Self;
    fn outcome(self) -> PyResult<Self> {
        Ok(self)
    }
}
impl<T: PyClass> Outcome for PyRef<'_, T> {
    type Value = Self;
    fn outcome(self) -> PyResult<Self> {
        Ok(self)
    }
}

/// For the tests: the method that panics at its next call. Looked at only while `ARMED`.
static ARMED: AtomicBool = AtomicBool::new(false);
static TARGET: Mutex<String> = Mutex::new(String::new());

/// Private, for the tests of the guard: the next call of the native method or function of this name panics.
#[pyfunction]
pub fn _panic_in(name: String) {
    *TARGET.lock().unwrap_or_else(PoisonError::into_inner) = name;
    ARMED.store(true, Ordering::Relaxed);
}

#[cold]
fn panic_if_meant(name: &str) {
    if *TARGET.lock().unwrap_or_else(PoisonError::into_inner) == name {
        ARMED.store(false, Ordering::Relaxed);
        #[allow(clippy::panic)] // what the hook is for
        {
            panic!("forced in {name}");
        }
    }
}

/// Runs a body; what it panics with is raised as an InternalError. `poison`: its object's mark, set by that, and refused from then on.
pub fn guarded<O: Outcome>(
    poison: Option<&Poison>,
    name: &'static str,
    body: impl FnOnce() -> O,
) -> PyResult<O::Value> {
    if poison.is_some_and(|poison| poison.0.load(Ordering::Relaxed)) {
        return Err(make(
            Code::Poisoned,
            name,
            "an earlier call on this object failed inside fcgiguard: it cannot be used any more",
        ));
    }
    let caught = catch_unwind(AssertUnwindSafe(|| {
        if ARMED.load(Ordering::Relaxed) {
            panic_if_meant(name);
        }
        body()
    }));
    match caught {
        Ok(result) => result.outcome(),
        Err(payload) => {
            if let Some(poison) = poison {
                poison.0.store(true, Ordering::Relaxed);
            }
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
            Err(make(Code::Internal, name, text))
        }
    }
}

fn make(code: Code, name: &str, text: &str) -> PyErr {
    Python::attach(|py| raise(py, code, &format!("{name}: {text}")))
}

/// Puts every method of a `#[pymethods]` block under the guard. An object's mark is its field `poison`.
macro_rules! guard_methods {
    ($(#[$outer:meta])* impl $class:ident { $($methods:tt)* }) => {
        $crate::guard::guard_methods!(@ [$(#[$outer])* impl $class] [] $($methods)*);
    };
    (@ [$($head:tt)*] [$($done:tt)*]) => {
        $($head)* {
            $($done)*
        }
    };
    (@ $head:tt [$($done:tt)*] $(#[$m:meta])* fn $name:ident $(<$l:lifetime>)? (&mut $this:ident $($args:tt)*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        $crate::guard::guard_methods!(@ $head [$($done)* $(#[$m])*
            fn $name $(<$l>)? (&mut $this $($args)*) -> PyResult<<($($ret)?) as $crate::guard::Outcome>::Value> {
                let poison = $this.poison.clone();
                $crate::guard::guarded::<($($ret)?)>(Some(&poison), stringify!($name), || $body)
            }
        ] $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] $(#[$m:meta])* fn $name:ident $(<$l:lifetime>)? (& $this:ident $($args:tt)*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        $crate::guard::guard_methods!(@ $head [$($done)* $(#[$m])*
            fn $name $(<$l>)? (& $this $($args)*) -> PyResult<<($($ret)?) as $crate::guard::Outcome>::Value> {
                $crate::guard::guarded::<($($ret)?)>(Some(&$this.poison), stringify!($name), || $body)
            }
        ] $($rest)*);
    };
    (@ $head:tt [$($done:tt)*] $(#[$m:meta])* fn $name:ident $(<$l:lifetime>)? ($this:ident: &Bound<$b:lifetime, Self>) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        $crate::guard::guard_methods!(@ $head [$($done)* $(#[$m])*
            fn $name $(<$l>)? ($this: &Bound<$b, Self>) -> PyResult<<($($ret)?) as $crate::guard::Outcome>::Value> {
                $crate::guard::guarded::<($($ret)?)>(Some(&$this.get().poison), stringify!($name), || $body)
            }
        ] $($rest)*);
    };
    // Without an object yet, or with one that is only handed back.
    (@ $head:tt [$($done:tt)*] $(#[$m:meta])* fn $name:ident $(<$l:lifetime>)? ($($args:tt)*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        $crate::guard::guard_methods!(@ $head [$($done)* $(#[$m])*
            fn $name $(<$l>)? ($($args)*) -> PyResult<<($($ret)?) as $crate::guard::Outcome>::Value> {
                $crate::guard::guarded::<($($ret)?)>(None, stringify!($name), || $body)
            }
        ] $($rest)*);
    };
}
pub(crate) use guard_methods;
