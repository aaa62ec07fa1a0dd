//! MCP servers as sources: well-behaved ones, one that does everything that servers in agent containers were seen to do (facts: lessons 10 to 12),
//! a whole daemon beside them, and real ones.

mod adversary;
mod daemon;
mod eras;
mod fake;
mod pool;
mod real;
