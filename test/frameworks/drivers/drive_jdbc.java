// Does as it is told, one line of standard input after the other; each server's
// connection is one that all sessions share, as a small pool's would be.
import com.zaxxer.hikari.HikariDataSource;
import java.io.*;
import java.sql.*;
import java.util.*;
import javax.sql.DataSource;
import org.postgresql.ds.PGSimpleDataSource;

class Drive {
	static DataSource pool(DataSource source)
	{
		HikariDataSource pool = new HikariDataSource();
		pool.setDataSource(source);
		pool.setMaximumPoolSize(1);
		return pool;
	}

	static DataSource plain(String url)
	{
		PGSimpleDataSource source = new PGSimpleDataSource();
		source.setUrl(url);
		return source;
	}

	static String url(String port)
	{
		return "jdbc:postgresql://127.0.0.1:" + System.getenv(port) + "/postgres?user=" + System.getenv("PGUSER");
	}

	public static void main(String[] args) throws Exception
	{
		boolean bound = args.length > 0;
		DataSource standby = pool(bound ? Bound.dataSource(url("STANDBY_PORT")) : plain(url("STANDBY_PORT")));
		DataSource source = new RoutingDataSource(pool(plain(url("PRIMARY_PORT"))), standby);
		Map<String, RoutingDataSource.Knowledge> sessions = new HashMap<>();
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));

		for (String line; (line = in.readLine()) != null;)
		{
			String[] words = line.split(" ");
			boolean read = words[0].equals("read");
			RoutingDataSource.Knowledge session = sessions.computeIfAbsent(words[1], name -> new RoutingDataSource.Knowledge());
			session.readOnly = read;
			RoutingDataSource.session.set(session);
			try (Connection connection = (read && bound ? standby : source).getConnection();
				PreparedStatement statement = connection.prepareStatement(
					read ? "SELECT count(*) FROM orders WHERE id = ?" : "INSERT INTO orders VALUES (?)"))
			{
				statement.setInt(1, Integer.parseInt(words[2]));
				if (read)
				{
					ResultSet rows = statement.executeQuery();
					rows.next();
					System.out.println(rows.getInt(1));
				}
				else
				{
					statement.execute();
					System.out.println("ok");
				}
			}
			catch (SQLException e)
			{
				System.out.println("error " + e.getSQLState());
			}
		}
		System.exit(0);
	}
}
