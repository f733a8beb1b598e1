package statement

// Time is an instant in whole seconds since 1970 UTC; in JSON it is RFC 3339 in UTC ("2026-11-23T08:00:00Z").
// Zero means "not given" and is never a valid instant in a statement.
type Time int64

// Seconds is a duration in whole seconds; in JSON a plain integer.
type Seconds int64
