//! Preloaded into foreign FastCGI workers.
