// Package judge finds out what only the broker that proposes a statement can see: whether it is within a role's hours, whether
// a code is right, what a role's hook says.
//
// It decides none of what follows: whether a code was used before, how often somebody was wrong, and what a refusing hook means
// is package broker's, on every broker alike. It never makes a role open that would not without it. Hooks are called here and
// nowhere else.
//
// Package edge asks it before it proposes, and puts the answer into the command. Read hours.go, code.go, then hook.go.
package judge
