import Testing

@testable import MirrorServer

@Suite struct FlatTOMLTests {
    private func fault(_ text: String) -> FlatTOML.Fault? {
        do throws(FlatTOML.Fault) {
            _ = try FlatTOML.parse(text)
            return nil
        } catch {
            return error
        }
    }

    @Test func everythingThatAConfigurationIsMadeOfIsRead() throws {
        let text = """
            # A comment with é.
            a-b_1 = "text" # another
            "quoted key"='C:\\dir'
            \t1 = true

            list = [ "a", # why
              'b',
            ]
            empty = []
            no = false
            """
        let table = try FlatTOML.parse(text.replacing("\n", with: "\r\n"))
        #expect(
            table == [
                "a-b_1": .text("text"), "quoted key": .text("C:\\dir"), "1": .flag(true),
                "list": .list([.text("a"), .text("b")]), "empty": .list([]), "no": .flag(false),
            ])
    }

    @Test func escapesAreThoseOfTOML() throws {
        let table = try FlatTOML.parse(#"a = "\b\t\n\f\r\"\\\u00e9\U0001D11E""#)
        #expect(table["a"] == .text("\u{8}\t\n\u{C}\r\"\\é𝄞"))
    }

    @Test(arguments: [("0", 0), ("1", 1), ("64", 64), ("123456789", 123_456_789)])
    func wholeNumberIsRead(text: String, number: Int) throws {
        #expect(try FlatTOML.parse("a = \(text) # comment\nb = true") == ["a": .number(number), "b": .flag(true)])
    }

    @Test(arguments: [
        "01", "1234567890", "+1", "-1_000", "+1.5e3", "0xFF", "inf", "-nan", "1979-05-27 07:32:00Z", "{ b = 1 }",
        "07:32:00",
    ])
    func valueOfNoUseIsRecognised(value: String) throws {
        #expect(try FlatTOML.parse("a = \(value)\nb = true") == ["a": .other, "b": .flag(true)])
    }

    @Test(
        arguments: [
            ("a = \"b", "a text is not closed"), ("a = \"b\n\"", "a text is not closed"), ("a", "a: = is missing"),
            ("a =", "a value is missing"), ("= 1", "a key is missing"), ("a = b", "b is no value"),
            ("a = true true", "something follows the value"), ("a = true\ra = 1", "something follows the value"),
            ("a = true\na = true", "a: is there twice"), ("a.b = 1", "a: dotted keys have no place here"),
            ("a = \"\"\"b\"\"\"", "texts in three quotes have no place here"), ("[a]", "tables have no place here"),
            ("[\r\n", "tables have no place here"), ("[[", "tables have no place here"),
            ("a = [}", "a value is missing"), ("a = [\"b\" \"c\"]", "a list is not closed"),
            ("a = [\"b\",,]", "a value is missing"), ("a = [{}]", "inline tables have no place here"),
            ("a = \"\\ud800\"", "a number that is no character"),
            ("a = \"\\x\"", "\\x is no escape; a backslash is written as \\\\"),
            ("a = \"\\u12\"", "\\u has four digits, \\U eight"), ("# \u{7F}", "a control character in a comment"),
            ("a = '\u{1}'", "a control character in a text"), ("\u{FEFF}a = 1", "a key is missing"),
        ])
    func brokenTextIsRefusedWithTheReason(text: String, reason: String) {
        #expect(fault(text)?.text == reason)
    }

    @Test func faultNamesTheLine() { #expect(fault("a = 1\n\nb = [\n 'c',\n !")?.line == 5) }

    @Test func deepListsDoNotExhaustTheStack() {
        #expect(fault("a = " + String(repeating: "[", count: 100_000))?.text == "lists in lists in lists")
    }
}
