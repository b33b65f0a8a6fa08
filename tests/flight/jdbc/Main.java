import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/** What a tool on JDBC does with the store; one line per fact, which test_jdbc.py compares. */
public class Main {
  interface Action {
    Object run() throws Exception;
  }

  static void say(String name, Action action) {
    try {
      System.out.println(name + " = " + action.run());
    } catch (Throwable error) {
      System.out.println(name + " ! " + error.getMessage().replace('\n', ' '));
    }
  }

  static String rows(ResultSet result, String... columns) throws SQLException {
    StringBuilder text = new StringBuilder();
    while (result.next()) {
      for (String column : columns) {
        text.append(result.getString(column)).append(' ');
      }
      text.append("| ");
    }
    result.close();
    return text.toString().trim();
  }

  static String ask(Statement statement, String sql, String... columns) throws SQLException {
    return rows(statement.executeQuery(sql), columns);
  }

  public static void main(String[] arguments) throws Exception {
    try (Connection connection = DriverManager.getConnection(arguments[0]);
        Statement statement = connection.createStatement()) {
      DatabaseMetaData about = connection.getMetaData();
      say("product", () -> about.getDatabaseProductName() + " " + about.getDatabaseProductVersion());
      say("read only", about::isReadOnly);
      say("quote", about::getIdentifierQuoteString);
      say("keywords", () -> about.getSQLKeywords().contains("qualify"));
      say("functions", about::getNumericFunctions);
      say("union", about::supportsUnionAll);
      say("transactions", about::supportsTransactions);
      say("group by", about::supportsGroupBy);
      say("outer joins", about::supportsOuterJoins);
      say("statement length", about::getMaxStatementLength);
      say("catalogs", () -> rows(about.getCatalogs(), "TABLE_CAT"));
      say("schemas", () -> rows(about.getSchemas(), "TABLE_SCHEM", "TABLE_CATALOG"));
      say("table types", () -> rows(about.getTableTypes(), "TABLE_TYPE"));
      say("tables", () -> rows(about.getTables(null, null, "le%", null), "TABLE_NAME"));
      say("columns",
          () -> rows(about.getColumns(null, null, "position", "%"), "COLUMN_NAME", "TYPE_NAME"));
      say("primary keys", () -> rows(about.getPrimaryKeys(null, null, "events")));
      say("imported keys", () -> rows(about.getImportedKeys(null, null, "events")));
      say("exported keys", () -> rows(about.getExportedKeys(null, null, "events")));
      say("cross reference",
          () -> rows(about.getCrossReference(null, null, "events", null, null, "dead")));
      say("rows", () -> ask(statement,
          "SELECT id, time, text, payload FROM events ORDER BY source_offset LIMIT 2",
          "id", "time", "text", "payload"));
      say("count", () -> ask(statement, "SELECT count(*) AS n FROM events", "n"));
      say("vector", () -> {
        ResultSet result = statement.executeQuery("SELECT embedding FROM events LIMIT 1");
        result.next();
        return ((Object[]) result.getArray(1).getArray()).length;
      });
      say("prepared", () -> {
        String sql = "SELECT id FROM events WHERE source_offset < ? AND type = ? ORDER BY 1 LIMIT ?";
        try (PreparedStatement prepared = connection.prepareStatement(sql)) {
          prepared.setLong(1, 3);
          prepared.setString(2, "message");
          prepared.setLong(3, 2);
          String first = rows(prepared.executeQuery(), "id");
          prepared.setLong(1, 1);
          return first + " then " + rows(prepared.executeQuery(), "id");
        }
      });
      say("delete", () -> statement.executeUpdate("DELETE FROM events"));
      say("wrong", () -> ask(statement, "SELECT nope FROM events", "nope"));
      say("still", () -> ask(statement, "SELECT 1 AS one", "one"));
    }
  }
}
