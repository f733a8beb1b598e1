package statement

// Person is a human in the policy: ^[a-z_][a-z0-9_-]{0,30}$.
type Person string

// Account is a Unix login name on a host: ^[a-z_][a-z0-9_-]{0,30}$.
type Account string

// HostName is a host's own name in the deployment: lower-case DNS labels, at most 253 bytes.
type HostName string

// RoleName names a role: ^[a-z][a-z0-9-]{0,62}$.
type RoleName string

// BrokerName names a broker in the policy: ^[a-z][a-z0-9-]{0,62}$.
type BrokerName string
