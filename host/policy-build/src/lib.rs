//! Builds policies in every language with the language's own tools.
