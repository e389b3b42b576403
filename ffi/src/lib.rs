//! C ABI of fcgiguard.
