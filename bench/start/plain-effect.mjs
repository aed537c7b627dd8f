/** The same in a program that uses effect. */
import "effect"
import "./plain.mjs"
