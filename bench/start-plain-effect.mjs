/** The same in a program that uses effect. */
import "effect"
import "./start-plain.mjs"
