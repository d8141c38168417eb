/// What a test that needs a value that must be there says instead of `!`.
package struct Missing: Error, CustomStringConvertible {
    package var description: String
    package init(_ what: String) { description = what }
}
