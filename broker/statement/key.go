package statement

// Key is a public key in canonical authorized_keys form without comment, "ssh-ed25519 AAAA…". Only ed25519,
// sk-ed25519, ecdsa-p256, sk-ecdsa-p256 and rsa ≥ 3072 parse; certificates do not. Comparable: equal strings, equal keys.
type Key string
