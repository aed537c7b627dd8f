/**
 * `/codio/1.0.0`: what this node says to another Codio node, and how it answers.
 */
export * as CodioProtocol from "./CodioProtocol.ts"
