"""Words for signs: short, common, and none that names a kind of thing or a colour."""

_LIST = """
open shut exit enter stop go slow fast sale free new old hello bye yes welcome thanks please
cafe bar shop hotel bank park zoo beach market school museum station airport cinema theatre
lunch dinner menu salt sugar water milk juice soup rice cream toast
north south east west left right up down here there push pull on off start end
monday friday sunday today now later soon never always early late
love hope joy peace luck dream magic smile happy calm brave kind lucky sweet
danger caution quiet private secret wet cold hot warm cool dry fresh
music art dance song film game sport team play win goal race jump run
home garden room kitchen street road bridge river lake island hill valley forest farm
spring summer autumn winter morning noon night wind rain snow storm
news mail post paper letter photo radio video web code data
one two three four five six seven eight nine ten zero
london paris rome tokyo cairo lima oslo delhi berlin madrid
mars venus earth space planet comet orbit
rent tickets gate floor lift stairs toilet
sunny cloudy misty lazy busy crazy tiny giant super mega turbo
bazaar diner grill bakery toys tools
alpha beta delta omega sigma echo zulu victor
wash clean cook bake draw read write think learn teach listen
gold silver iron stone wood glass silk wool
king queen wizard pirate knight captain doctor nurse baker pilot
party picnic circus parade festival holiday birthday wedding
"""
WORDS = tuple(_LIST.split())
