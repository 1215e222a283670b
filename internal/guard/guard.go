// Package guard lets a test take away one of the guards that uphold the
// invariants I1 to I8, to show that the end-to-end tests would notice. Only a
// program that is built with the tag unguarded can be talked into that: anywhere
// else the question is a constant that the compiler removes.
package guard
