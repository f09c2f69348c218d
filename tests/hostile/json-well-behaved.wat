;; Nothing of its own: what the prelude does is a valid policy.
